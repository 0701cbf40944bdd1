"""The numbers as an image."""

from __future__ import annotations

from pathlib import Path

from sdo_ray.fidelity.summary import Fidelity


def plot(fidelity: Fidelity, file: Path, title: str) -> None:
    """Write a PNG: plans by time and cosine, and single steps by cosine and norm.

    Args:
        fidelity: the numbers.
        file: where to.
        title: above it all.
    """
    # The object interface: pyplot would look for a display, and keep every figure.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12 if fidelity.steps else 6.5, 5), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    axes = figure.subplots(1, 2 if fidelity.steps else 1, squeeze=False)[0]
    plans = sorted(fidelity.plans, key=lambda plan: plan.draw_cosine)
    places = range(len(plans))
    axes[0].barh(
        places,
        [plan.draw_cosine for plan in plans],
        xerr=[plan.draw_cosine_spread for plan in plans],
        color="#9ecae1",
        ecolor="#5a5a5a",
        capsize=2,
        label="one draw, with its spread",
    )
    told = [(plan, place) for place, plan in zip(places, plans, strict=True) if plan.cosine is not None]
    axes[0].plot(
        [plan.cosine for plan, _ in told],
        [place for _, place in told],
        "o",
        color="#08519c",
        label="mean of all draws there could be, with its 95 % interval",
    )
    for plan, place in told:
        if plan.cosine_low is not None:
            axes[0].plot([plan.cosine_low, plan.cosine_high], [place, place], color="#08519c", linewidth=1)
    priced = [(plan.for_the_price, place) for place, plan in zip(places, plans, strict=True) if plan.for_the_price]
    axes[0].plot(
        [value for value, _ in priced],
        [place for _, place in priced],
        "D",
        color="#d94801",
        label="for the time of one full update",
    )
    axes[0].set_yticks(places, [f"{plan.plan}  ({plan.time_ratio:.2f} x time)" for plan in plans])
    axes[0].set_xlabel("cosine with the gradient of full")
    axes[0].axvline(0, color="black", linewidth=0.8)
    axes[0].legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), fontsize=8)  # below, where no bar is
    if fidelity.steps:
        k = [step.step for step in fidelity.steps]
        axes[1].errorbar(
            k,
            [step.cosine for step in fidelity.steps],
            yerr=[step.cosine_spread for step in fidelity.steps],
            fmt="o-",
            color="#08519c",
            ecolor="#9ecae1",
            label="cosine with full",
        )
        axes[1].plot(
            k,
            [step.direct_cosine for step in fidelity.steps],
            "s--",
            color="#6baed6",
            label="cosine with all direct terms",
        )
        axes[1].plot(
            k, [step.norm_ratio for step in fidelity.steps], "^:", color="#d94801", label="norm / norm of full"
        )
        axes[1].set_xlabel("the one kept step k, in the order of sampling")
        axes[1].axhline(0, color="black", linewidth=0.8)
        axes[1].legend(fontsize=8)
    figure.savefig(file, dpi=110)
