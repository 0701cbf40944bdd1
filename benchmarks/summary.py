"""Results of `learn` as tables and an image.

Notation
    s[j][p]    evaluated score of held-out prompt p after seed j of a plan; b[p] that of the base model
    gain       mean over seeds and prompts of s[j][p] - b[p]

Intervals are percentile bootstraps (Efron 1979) that draw seeds with replacement, and prompts within them. With one
seed they say how the gain varies over prompts, not how it would over seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.learning import CONTENT, EVALUATED, LEARNED

Line = Mapping[str, Any]
"""A line of a results file, see `benchmarks.learning.record`."""


def evaluated(point: Line, reward: str) -> np.ndarray:
    """The mix of the evaluators' scores, [P]."""
    return sum(weight * np.array(point["scores"][name]) for name, weight in EVALUATED[reward].items())  # type: ignore[return-value]


def at_updates(line: Line) -> Line | None:
    """The measurement at equal updates, None if the time was up before."""
    return next((p for p in line["points"] if p["updates"] == line["task"]["updates"]), None)


def at_time(line: Line) -> Line:
    """The measurement at equal time."""
    last: Line = line["points"][-1]
    return last


def interval(differences: np.ndarray, resamples: int = 4000) -> tuple[float, float, float]:
    """Mean of differences [seeds, P], and its 95 % interval."""
    seeds, prompts = differences.shape
    draw = np.random.default_rng(0)
    rows = draw.integers(seeds, size=(resamples, seeds))
    columns = draw.integers(prompts, size=(resamples, seeds, prompts))
    low, high = np.percentile(differences[rows[..., None], columns].mean(axis=(1, 2)), [2.5, 97.5])
    return float(differences.mean()), float(low), float(high)


def tables(lines: Sequence[Line]) -> str:
    """Markdown: for each task and reward a table of the plans, the best at equal time first."""
    parts = []
    for task in _different(line["task"] for line in lines):
        parts.append("; ".join(f"{name} {value}" for name, value in task.items()))
        for reward in LEARNED:
            if rows := _rows([line for line in lines if line["task"] == task and line["reward"] == reward], reward):
                parts.append("\n".join(rows))
    return "\n\n".join(parts)


def _rows(lines: Sequence[Line], reward: str) -> list[str]:
    base, by_plan = _sorted(lines)
    if base is None or not by_plan:
        return []
    b, content = evaluated(base["points"][0], reward), np.array(base["points"][0]["scores"][CONTENT])
    terms = " + ".join(f"{weight:g} {name}" for name, weight in LEARNED[reward].items())
    evaluators = " + ".join(f"{weight:g} {name}" for name, weight in EVALUATED[reward].items())
    # Of a mix, what is not content, which has its own column.
    parts = [name for name in EVALUATED[reward] if name != CONTENT and len(EVALUATED[reward]) > 1]
    own = {name: np.array(base["points"][0]["scores"][name]) for name in parts}
    columns = ["plan", "seeds", "gain at equal updates", "updates in the time", "gain at equal time"]
    columns += [*(f"of which `{name}`" for name in parts), "less `full`'s", "content"]
    rows = [
        f"**{reward}**: learned {terms}; measured by {evaluators}, base {b.mean():.3f}; content {content.mean():.3f}",
        "",
        f"| {' | '.join(columns)} |",
        "|---" * len(columns) + "|",
    ]
    full = {line["seed"]: evaluated(at_time(line), reward) for line in by_plan.get("full", [])}
    ranked = sorted(by_plan.items(), key=lambda item: -np.mean([evaluated(at_time(line), reward) for line in item[1]]))
    for plan, runs in ranked:
        early = [evaluated(p, reward) - b for line in runs if (p := at_updates(line)) is not None]
        late = [evaluated(at_time(line), reward) - b for line in runs]
        beside = [evaluated(at_time(line), reward) - full[line["seed"]] for line in runs if line["seed"] in full]
        cells = [
            f"`{plan}`",
            str(len(runs)),
            _said(early),
            f"{np.mean([at_time(line)['updates'] for line in runs]):.0f}",
            _said(late),
            *(_said([np.array(at_time(line)["scores"][name]) - own[name] for line in runs]) for name in parts),
            "" if plan == "full" else _said(beside),
            f"{np.mean([at_time(line)['scores'][CONTENT] for line in runs]):.3f}",
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def plot(lines: Sequence[Line], file: Path) -> None:
    """Write a PNG: for each reward the plans' gains at equal time and at equal updates; one task only."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rewards = [r for r in LEARNED if any(line["reward"] == r and line["plan"] != "none" for line in lines)]
    figure = Figure(figsize=(4.6 * len(rewards), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, reward in zip(figure.subplots(1, len(rewards), squeeze=False)[0], rewards, strict=True):
        base, by_plan = _sorted([line for line in lines if line["reward"] == reward])
        assert base is not None
        b = evaluated(base["points"][0], reward)
        gains = {
            plan: np.stack([evaluated(at_time(line), reward) - b for line in runs]) for plan, runs in by_plan.items()
        }
        plans = sorted(gains, key=lambda plan: gains[plan].mean())
        for place, plan in enumerate(plans):
            mean, low, high = interval(gains[plan])
            axes.barh(place, mean, color="#9ecae1" if plan != "full" else "#fdae6b")
            axes.plot([low, high], [place, place], color="#5a5a5a")
            early = [evaluated(p, reward) - b for line in by_plan[plan] if (p := at_updates(line)) is not None]
            if early:
                axes.plot(np.mean(early), place, "o", color="#08519c")
        axes.set_yticks(range(len(plans)), [f"{plan} ({len(by_plan[plan])})" for plan in plans])
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_title(reward)
        axes.set_xlabel("held-out gain")
    figure.suptitle("bars: at equal CPU time, with 95 % intervals; dots: at equal updates; in brackets: seeds")
    figure.savefig(file, dpi=110)


def _sorted(lines: Sequence[Line]) -> tuple[Line | None, dict[str, list[Line]]]:
    """The base model's line, and the runs of each plan."""
    base = next((line for line in lines if line["plan"] == "none"), None)
    plans = sorted({line["plan"] for line in lines} - {"none"})
    return base, {plan: [line for line in lines if line["plan"] == plan] for plan in plans}


def _different(tasks: Any) -> list[Any]:
    found: list[Any] = []
    for task in tasks:
        if task not in found:
            found.append(task)
    return found


def _said(differences: Sequence[np.ndarray]) -> str:
    if not differences:
        return ""
    mean, low, high = interval(np.stack(differences))
    return f"{mean:+.3f} ({low:+.3f} .. {high:+.3f})"
