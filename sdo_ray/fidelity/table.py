"""The numbers as text for a terminal, with what they suggest."""

from __future__ import annotations

from sdo_ray.fidelity.summary import Fidelity


def as_table(fidelity: Fidelity) -> str:
    """All plans, then all steps, the rewards, and what they suggest."""
    width = max(len(plan.plan) for plan in fidelity.plans)
    lines = [
        f"{'plan':<{width}}  {'cosine, 95 %':>22}  {'|G|/|F|':>9}  {'one draw':>16}  {'bias, 95 %':>20}  "
        f"{'variance':>9}  {'time/full':>9}  {'saved/full':>10}  {'saved, MB':>9}  {'for the price, 95 %':>22}  "
        f"{'rows/full':>9}  {'for the calls, 95 %':>22}"
    ]
    for p in fidelity.plans:
        cosine = _interval(p.cosine, p.cosine_low, p.cosine_high)
        bias = _interval(p.bias, p.bias_low, p.bias_high)
        price = _interval(p.for_the_price, p.for_the_price_low, p.for_the_price_high)
        calls = _interval(p.for_the_calls, p.for_the_calls_low, p.for_the_calls_high) if p.rows_ratio else ""
        rows = "" if p.rows_ratio is None else format(p.rows_ratio, ".2f")
        draw = f"{p.draw_cosine:.3f} +- {p.draw_cosine_spread:.3f}"
        lines.append(
            f"{p.plan:<{width}}  {cosine:>22}  {_number(p.norm_ratio, '.3f'):>9}  {draw:>16}  {bias:>20}  "
            f"{_number(p.variance, '.3g'):>9}  {p.time_ratio:>9.2f}  {p.saved_ratio:>10.3f}  {p.saved / 1e6:>9.1f}  "
            f"{price:>22}  {rows:>9}  {calls:>22}".rstrip()
        )
    if cheap := [plan for plan in fidelity.plans if plan.exact_cosine is not None]:
        lines += ["", f"{'cheap steps':<{width}}  {'time/exact steps':>16}  {'cosine with exact steps':>23}"]
        lines += [
            f"{p.plan:<{width}}  {p.exact_time_ratio:>16.2f}  {p.exact_cosine:>13.3f} +- {p.exact_cosine_spread:.3f}"
            for p in cheap
        ]
    if fidelity.steps:
        lines += [
            "",
            f"{'step':>4}  {'cosine':>7}  {'+-':>6}  {'|G_k|/|F|':>9}  {'cosine to direct':>16}  "
            f"{'|G_k|/|direct|':>14}",
        ]
        lines += [
            f"{s.step:>4}  {s.cosine:>7.3f}  {s.cosine_spread:>6.3f}  {s.norm_ratio:>9.3f}  {s.direct_cosine:>16.3f}  "
            f"{s.direct_norm_ratio:>14.3f}"
            for s in fidelity.steps
        ]
    if fidelity.rewards is not None and fidelity.rewards.norms:
        lines += ["", *fidelity.rewards.lines()]
    return "\n".join([*lines, "", *suggestions(fidelity)])


def suggestions(fidelity: Fidelity) -> list[str]:
    """Lines that say which plans and steps come nearest to `full`, by the price and at any price."""
    others = [plan for plan in fidelity.plans if plan.plan != "full"]
    lines = ["one draw nearest to full: " + _named(sorted(((p.draw_cosine, p.plan) for p in others), reverse=True))]
    priced = [(p.for_the_price, p.plan) for p in fidelity.plans if p.for_the_price is not None]
    if priced:
        lines.append("nearest for the time of one full update: " + _named(sorted(priced, reverse=True)))
    if fidelity.steps:
        best = sorted(((s.cosine, f"step {s.step}") for s in fidelity.steps), reverse=True)
        lines.append("single steps nearest to full: " + _named(best))
        total = sum(s.norm_ratio for s in fidelity.steps)
        third = len(fidelity.steps) // 3 or 1
        parts = {"first": fidelity.steps[:third], "last": fidelity.steps[-third:]}
        shares = ", ".join(
            f"{name} third {sum(s.norm_ratio for s in part) / total if total else 0:.0%}"
            for name, part in parts.items()
        )
        lines.append(
            f"share of the steps' norms: {shares}; all direct terms together: cosine {fidelity.direct_cosine:.3f}"
        )
    return lines


def _number(value: float | None, form: str) -> str:
    return "too noisy" if value is None else format(value, form)


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    return _number(value, ".3f") + ("" if low is None or high is None else f" ({low:.2f} .. {high:.2f})")


def _named(pairs: list[tuple[float, str]]) -> str:
    return ", ".join(f"{name} {value:.3f}" for value, name in pairs[:4])
