"""The numbers as text for a terminal, with what they suggest."""

from __future__ import annotations

from sdo_ray.fidelity.summary import Fidelity


def as_table(fidelity: Fidelity) -> str:
    """All plans, then all steps, then what they suggest."""
    width = max(len(plan.plan) for plan in fidelity.plans)
    lines = [
        f"{'plan':<{width}}  {'cosine':>7}  {'|G|/|F|':>8}  {'one draw':>16}  {'bias':>6}  {'variance':>9}  "
        f"{'time/full':>9}  {'saved/full':>10}  {'saved, MB':>9}  {'for the price':>13}"
    ]
    for p in fidelity.plans:
        draw = f"{p.draw_cosine:.3f} +- {p.draw_cosine_spread:.3f}"
        price = "too noisy" if p.for_the_price is None else f"{p.for_the_price:.3f}"
        lines.append(
            f"{p.plan:<{width}}  {p.cosine:>7.3f}  {p.norm_ratio:>8.3f}  {draw:>16}  {p.bias:>6.3f}  "
            f"{p.variance:>9.3g}  {p.time_ratio:>9.2f}  {p.saved_ratio:>10.3f}  {p.saved / 1e6:>9.1f}  {price:>13}"
        )
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


def _named(pairs: list[tuple[float, str]]) -> str:
    return ", ".join(f"{name} {value:.3f}" for value, name in pairs[:4])
