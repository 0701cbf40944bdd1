"""What a setting of `sdo align` does to what is learned: runs with and without it, in one process and no cluster.

    python -m benchmarks.ablation run pipelines/configs/emoji.yaml --out FILE.jsonl --seeds 3 \\
        --variant plain --variant smooth 'rewards.terms.0.smooth={shifts: 3}' 'rewards.terms.1.smooth={shifts: 3}'
    python -m benchmarks.ablation table FILE.jsonl

A variant is a name and the settings that it changes; all start from the same file and see the same rows, noise and kept
steps. Each is trained with plain AdamW, clipped as the trainers clip, every update by the newest policy, and measured
by the file's evaluators on its held-out prompts, whose noise is the same for all. Each run is one line of the file
`--out`; what is there is not done again, so that a command that was stopped goes on.

`table` shows each variant's gain over the base model, and over the first variant, at equal updates.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.learning import measured
from benchmarks.summary import interval
from rewards import create
from rewards.pulls import Memory
from rewards.scoring import score_with_gradient
from rewards.smoothing import score_with_smoothed_gradient
from sdo_ray.config.align import AlignSettings
from sdo_ray.config.align_checks import check_align
from sdo_ray.config.loading import load_settings
from sdo_ray.models.load import load_pipeline
from sdo_ray.models.parameters import set_parameters, trained_parameters
from sdo_ray.models.policy import attach_working_copy, initial_policy
from sdo_ray.prompts.heldout import draw_questions, read_heldout
from sdo_ray.prompts.read import read_prompts
from sdo_ray.prompts.schedule import schedule
from sdo_ray.rollout.contribution import compute_contribution
from sdo_ray.rollout.objective import RewardFunction
from sdo_ray.rollout.records import PromptBatch
from sdo_ray.seeds import derive_seed

Scores = Mapping[str, list[float]]
"""Evaluator or reward -> a score for each held-out prompt."""


def learn(settings: AlignSettings, at: Sequence[int], say: Callable[[str], None]) -> dict[int, dict[str, Any]]:
    """Train as the settings say.

    Args:
        settings: of a run.
        at: numbers of updates to measure after; 0 is the base.
        say: told about each update.

    Returns:
        Updates -> `scores`, and `seconds`: CPU time of the updates so far.
    """
    model, training = settings.model, settings.training
    pipeline = load_pipeline(model.base, model.dtype)
    trained = attach_working_copy(pipeline.components, model)
    set_parameters(trained, initial_policy(model, derive_seed(settings.run.seed, "adapter", 0)))
    parameters = trained_parameters(trained)
    adamw = torch.optim.AdamW(
        parameters.values(), lr=training.learning_rate, weight_decay=training.weight_decay, maximize=True
    )
    evaluation = settings.evaluation
    names = [*(evaluator.name for evaluator in evaluation.evaluators), *(t.name for t in settings.rewards.terms)]
    evaluators = {name: create(name) for name in names}
    prompts = read_prompts(settings.prompts.train, settings.prompts.column)
    questions = draw_questions(read_heldout(evaluation.prompts, evaluation.column), evaluation.num_prompts, 0)
    heldout = questions["prompt"].to_pylist()
    rewards, found, seconds, memory = _rewards(settings), dict[int, dict[str, Any]](), 0.0, Memory()
    for update in range(max(at) + 1):
        if update in at:
            found[update] = {
                "scores": measured(pipeline, settings.sampling, heldout, evaluators),
                "seconds": seconds,
            }
        if update == max(at):
            break
        began, size = time.process_time(), settings.samplers.batch_size
        blocks = schedule(
            prompts,
            seed=settings.run.seed,
            batch_size=training.batch_size,
            sampler_batch_size=size,
            start=update,
            stop=update + 1,
        )
        parts = [
            compute_contribution(
                pipeline,
                PromptBatch.from_arrow(block),
                update,
                seed=settings.run.seed,
                sampling=settings.sampling,
                plan=settings.plan,
                rewards=rewards,
                terms=[term.term for term in settings.rewards.terms],
                mixing=settings.rewards.mixing,
                memory=memory,
            )
            for block in blocks
        ]
        for part in parts:
            memory = memory.after(part.pulls)
        count = max(1, sum(part.num_samples for part in parts))
        for name, parameter in parameters.items():
            parameter.grad = torch.stack([part.gradient[name] for part in parts]).sum(dim=0) / count
        torch.nn.utils.clip_grad_norm_(parameters.values(), training.max_grad_norm)
        adamw.step()
        seconds += time.process_time() - began
        say(f"update {update + 1}, mixed {np.mean([m for part in parts for m in part.mixed]):+.3f}, {seconds:.0f} s")
    return found


def _rewards(settings: AlignSettings) -> RewardFunction:
    terms = [term for term in settings.rewards.terms if term.weight]
    teachers = {term.key: create(term.name, **term.options) for term in terms}

    def rewards(images: torch.Tensor, prompts: Sequence[str], seeds: Sequence[int]) -> Any:
        scores, gradients = {}, {}
        for term in terms:
            given = teachers[term.key], images, list(prompts)
            scores[term.key], gradients[term.key] = (
                score_with_gradient(*given)
                if term.smoothing is None
                else score_with_smoothed_gradient(*given, term.smoothing, seeds)
            )
        return scores, gradients

    return rewards


def run(given: argparse.Namespace) -> None:
    """Every variant and seed that the results file does not have yet."""
    out = Path(given.out)
    for seed in range(given.seeds):
        for name, *changes in given.variant:
            what = {"variant": name, "changes": [*given.set, *changes], "seed": seed, "at": given.at}
            if what in [line["what"] for line in _lines(out)]:
                continue
            settings = load_settings(AlignSettings, given.config, [*given.set, *changes, f"run.seed={seed}"])
            check_align(settings)
            began = f"{name}, seed {seed}: "
            points = learn(settings, given.at, lambda text, began=began: print(began + text, flush=True))  # type: ignore[misc]
            with out.open("a") as file:
                file.write(json.dumps({"what": what, "points": points}) + "\n")


def table(given: argparse.Namespace) -> None:
    """Markdown: for each reward and evaluator, gains over the base and over the first variant."""
    lines = _lines(Path(given.file))
    names = list(dict.fromkeys(line["what"]["variant"] for line in lines))
    first = lines[0]["points"]
    rows = ["| score | updates | variant | gain over the base | more than the first variant | CPU seconds |"]
    rows += ["|---" * 6 + "|"]
    for score in first[min(first, key=int)]["scores"]:
        for updates in sorted((u for u in first if int(u)), key=int):
            gains = {name: _by_seed(lines, name, updates, score) for name in names}
            for name in names:
                common = sorted(gains[name].keys() & gains[names[0]].keys())
                gain = np.stack([gains[name][seed] for seed in common])
                cells = [_said(gain)]
                cells += [""] if name == names[0] else [_said(gain - np.stack([gains[names[0]][s] for s in common]))]
                spent = [line["points"][updates]["seconds"] for line in lines if line["what"]["variant"] == name]
                rows.append(f"| `{score}` | {updates} | {name} | {' | '.join(cells)} | {np.mean(spent):.0f} |")
    print("\n".join(rows))


def _by_seed(lines: Sequence[Any], name: str, updates: str, score: str) -> dict[int, np.ndarray]:
    """Seed -> gains over the base of each held-out prompt."""
    return {
        line["what"]["seed"]: np.array(line["points"][updates]["scores"][score])
        - np.array(line["points"]["0"]["scores"][score])
        for line in lines
        if line["what"]["variant"] == name
    }


def _said(differences: np.ndarray) -> str:
    mean, low, high = interval(differences)
    return f"{mean:+.4f} ({low:+.4f} .. {high:+.4f})"


def _lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ablation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    running = commands.add_parser("run", help="train every variant with every seed")
    running.set_defaults(run=run)
    running.add_argument("config", help="settings of `sdo align` to start from")
    running.add_argument("--variant", action="append", nargs="+", required=True, help="name, and a.b=c of its own")
    running.add_argument("--set", action="append", default=[], help="a.b=c, for all variants")
    running.add_argument("--seeds", type=int, default=3, help="number of seeds (default: %(default)s)")
    running.add_argument("--at", type=int, nargs="+", default=[0, 12, 24, 36], help="updates to measure after")
    running.add_argument("--out", required=True, help="results file, JSON lines")
    showing = commands.add_parser("table", help="show what a results file has")
    showing.set_defaults(run=table)
    showing.add_argument("file", help="results file, JSON lines")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    given.run(given)
    return 0


if __name__ == "__main__":
    sys.exit(main())
