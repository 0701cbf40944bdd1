"""What is learned for how much work, measured on held-out prompts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.black_box.runs import PLANS, Run, Setting, samples_of
from benchmarks.estimators import read_lines
from benchmarks.learning import measured
from benchmarks.summary import interval
from rewards import create
from rewards.terms import Mixing

IMAGES = 16
"""Of an update, whatever the plan."""


@dataclass(frozen=True)
class Lesson:
    """Something to learn."""

    rewards: Mapping[str, float]
    hidden: tuple[str, ...]
    """Rewards that have a gradient, which policy-gradient estimators are not shown."""
    evaluators: tuple[str, ...]
    """What measures it on held-out prompts."""
    plans: tuple[str, ...]
    mixing: Mixing = Mixing()  # noqa: RUF009 (frozen)
    """How the gradients of rewards that have one become one."""


FILES = ("jpeg_compressibility", "heldout_alignment")
ALL = ("preference", "heldout_preference", "jpeg_compressibility", "alignment", "heldout_alignment")
STYLE = ("preference", "heldout_preference")
BOTH = Mixing(normalize="gradients")

LESSONS: Mapping[str, Lesson] = {
    "alignment": Lesson({"alignment": 1.0}, (), FILES, ("group",)),
    "small files": Lesson({"jpeg_compressibility": 1.0}, (), FILES, ("group", "flow-grpo", "dance-grpo")),
    "small files, aligned": Lesson({"jpeg_compressibility": 1.0, "alignment": 1.0}, (), FILES, ("group",)),
    "style": Lesson({"preference": 1.0}, ("preference",), STYLE, ("sdo", "group", "flow-grpo", "dance-grpo")),
    "style and small files, aligned": Lesson(
        {"preference": 1.0, "jpeg_compressibility": 1.0, "alignment": 1.0}, (), ALL, ("group",), BOTH
    ),
}
"""`jpeg_compressibility` has no gradient; `alignment` alone, by its gradient, is what the mix is compared with.
That of `preference` is for `sdo` alone: what it is worth. In the mix of three `group` has it too."""


def learning(
    setting: Setting,
    lessons: Sequence[str],
    prompts: Sequence[str],
    heldout: Sequence[str],
    seeds: int,
    rows: int,
    out: Path,
) -> None:
    """Learn lessons by each of their plans with each seed, for so many rows of work; one line of `out` for each.

    What the file has is not done again.
    """
    done = [(line["lesson"], line["plan"], line["seed"]) for line in read_lines(out)]
    wanted = [
        (name, plan, seed)
        for seed in range(seeds)
        for name in lessons
        for plan in (("none", *LESSONS[name].plans) if seed == 0 else LESSONS[name].plans)
    ]
    for name, plan, seed in wanted:
        if (name, plan, seed) in done:
            continue
        points = list(_learn(setting, LESSONS[name], plan, seed, prompts, heldout, 0 if plan == "none" else rows))
        line = {"setting": asdict(setting), "lesson": name, "plan": plan, "seed": seed, "budget": rows}
        with out.open("a") as file:
            file.write(json.dumps(line | {"points": points}) + "\n")
        means = {what: float(np.mean(scores)) for what, scores in points[-1]["scores"].items()}
        print(json.dumps({"lesson": name, "plan": plan, "seed": seed, **means}), flush=True)


def _learn(
    setting: Setting,
    lesson: Lesson,
    plan: str,
    seed: int,
    prompts: Sequence[str],
    heldout: Sequence[str],
    rows: int,
) -> Iterator[dict[str, Any]]:
    """Measurements: when as much work is done as there would be without sharing, and when all is."""
    run = Run(setting, PLANS[plan if rows else "sdo"], lesson.rewards, lesson.hidden, seed, mixing=lesson.mixing)
    evaluators = {name: create(name) for name in lesson.evaluators}
    optimizer = torch.optim.AdamW(run.parameters.values(), lr=setting.learning_rate, weight_decay=0.0)
    count = IMAGES // samples_of(run.plan, setting.steps)
    order = torch.Generator().manual_seed(seed)
    done, unshared, updates, seconds, measured_unshared = 0, 0, 0, 0.0, False
    parts: dict[str, list[float]] = {}

    def point(what: str) -> dict[str, Any]:
        scores = measured(run.pipeline, run.sampling, heldout, evaluators)
        means = {name: float(np.mean(values)) for name, values in parts.items()}
        return {"at": what, "updates": updates, "rows": done, "seconds": seconds, "scores": scores, "parts": means}

    while done < rows:
        batch = [prompts[i] for i in torch.randperm(len(prompts), generator=order)[:count]]
        made = run.batch(updates, batch, updates * count)
        for parameter, g in zip(run.parameters.values(), made.gradient.split(run.sizes()), strict=True):
            parameter.grad = -g.view_as(parameter)
        optimizer.step()
        done, unshared, updates = done + made.rows, unshared + made.unshared, updates + 1
        seconds += made.seconds
        for name, value in made.parts.items():
            parts.setdefault(name, []).append(value)
        if unshared >= rows > done and not measured_unshared:
            measured_unshared = True
            yield point("unshared")
    yield point("end")


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Markdown: gains over the base model on the held-out prompts, with bootstrap intervals over seeds and prompts."""
    rows = []
    for name, lesson in LESSONS.items():
        of_lesson = [line for line in lines if line["lesson"] == name]
        base = next((line["points"][-1]["scores"] for line in of_lesson if line["plan"] == "none"), None)
        if base is None:
            continue
        columns = [f"`{what}`, from {np.mean(base[what]):.2f}" for what in lesson.evaluators]
        rows += ["", f"| {name} | seeds | updates | CPU s | {' | '.join(columns)} |", "|---" * (4 + len(columns)) + "|"]
        for plan in lesson.plans:
            for at in ("unshared", "end"):
                points = [p for line in of_lesson if line["plan"] == plan for p in line["points"] if p["at"] == at]
                if points:
                    rows.append(_row(plan, at, points, base, lesson.evaluators))
            rows += _parts(plan, [line["points"][-1].get("parts", {}) for line in of_lesson if line["plan"] == plan])
    return "\n".join(rows).strip()


def _row(plan: str, at: str, points: Sequence[dict[str, Any]], base: Mapping[str, Any], names: Sequence[str]) -> str:
    said = []
    for name in names:
        differences = np.stack([np.array(p["scores"][name]) - np.array(base[name]) for p in points])
        said.append("{:+.3f} ({:+.3f} .. {:+.3f})".format(*interval(differences)))
    what = f"`{plan}`" + ", without sharing" * (at == "unshared")
    means = [np.mean([p[name] for p in points]) for name in ("updates", "seconds")]
    return f"| {what} | {len(points)} | {means[0]:.0f} | {means[1]:.0f} | {' | '.join(said)} |"


def _parts(plan: str, parts: Sequence[Mapping[str, float]]) -> list[str]:
    """What rewards with and without a gradient were to one another, means over updates and seeds."""
    if not any("group_norm" in found for found in parts):
        return []
    means = {name: np.mean([found[name] for found in parts if name in found]) for name in parts[-1]}
    return ["", f"`{plan}`: " + ", ".join(f"{name} {value:.3g}" for name, value in means.items())]
