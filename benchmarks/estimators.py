"""The gradient estimators against one another: what an update costs, and what it teaches for its price.

    python -m benchmarks.estimators cost [--model emoji] [--steps 50] [--batch 8] [--out COSTS.json]
    python -m benchmarks.estimators learn [--costs COSTS.json] --out RESULTS.jsonl [--rewards text] [--plans sdo full]
    python -m benchmarks.estimators table RESULTS.jsonl... [--plot FILE.png]

`cost` measures one update of each plan: time, bytes that autograd saves, and on CUDA the peak of allocated memory, as
ratios to the plain pipeline call and to `full`. `--device cuda --model sd15|sdxl|sd35-medium` does so with random
weights at the published sizes, `--size tiny` with the same classes in miniature.

`learn` trains the LoRA of the embedded model with each plan, reward and seed, all with one learning rate, and measures
on held-out prompts after equal updates and, with a file that `cost` wrote, after equal time: the updates that fit in
the time of `--updates` of `full`, by that file's medians. So the result does not depend on what else the machine does.
Time is CPU time of the process, without the rewards. Each result is one line of the file `--out`; what is there is not
done again, so that a command that was stopped goes on.

`table` shows what a file has.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.contenders import CONTENDERS
from benchmarks.cost import as_table, costs
from benchmarks.learning import LEARNED, Task, base_record, heldout_prompts, learn, record
from benchmarks.models import MODELS, load_model
from benchmarks.summary import plot, tables
from sdo_ray.prompts.read import read_prompts

TRAIN = "pipelines/configs/prompts/emoji_train.parquet"
HELDOUT = "pipelines/configs/prompts/emoji_heldout.parquet"


def cost_all(given: argparse.Namespace) -> None:
    """Measure and print."""
    model = load_model(given.model, rank=given.rank, dtype=given.dtype, device=given.device, tiny=given.size == "tiny")
    plans = [plan for plan in given.plans if plan not in given.without]
    measured = costs(model, plans, steps=given.steps, batch=given.batch, guidance=given.guidance, rounds=given.rounds)
    what = {name: getattr(given, name) for name in ("model", "size", "steps", "batch", "guidance", "rank", "dtype")}
    print(", ".join(f"{name} {value}" for name, value in what.items()), f"on {given.device}, {given.rounds} rounds")
    print(as_table(measured))
    if given.out:
        Path(given.out).write_text(json.dumps({"what": what, "costs": [asdict(cost) for cost in measured]}, indent=1))


def learn_all(given: argparse.Namespace) -> None:
    """Every combination that the results file does not have yet."""
    task = Task(
        base=given.base,
        steps=given.steps,
        batch=given.batch,
        rank=given.rank,
        learning_rate=given.learning_rate,
        guidance=given.guidance,
        dtype=given.dtype,
        updates=given.updates,
        heldout=given.heldout,
    )
    affordable = dict.fromkeys(given.plans, task.updates)
    if given.costs:
        affordable = updates_in_equal_time(json.loads(Path(given.costs).read_text()), task.updates)
    if unknown := [plan for plan in given.plans if plan not in affordable]:
        raise SystemExit(f"{given.costs} has no cost of {', '.join(unknown)}; it has {', '.join(affordable)}")
    out = Path(given.out)
    prompts, heldout = read_prompts(given.train), heldout_prompts(given.prompts, task.heldout)
    for seed in range(given.first_seed, given.first_seed + given.seeds):
        for reward in given.rewards:
            for plan in ("none", *given.plans):
                key = (json.loads(json.dumps(vars(task))), reward, plan, 0 if plan == "none" else seed)
                if key in [(line["task"], line["reward"], line["plan"], line["seed"]) for line in read_lines(out)]:
                    continue
                if plan == "none":
                    line = base_record(task, reward, heldout)
                else:
                    sheet = Path(given.sheets) / f"{reward}_{plan}_{seed}.png" if given.sheets else None
                    points = learn(task, reward, plan, seed, prompts, heldout, updates=affordable[plan], sheet=sheet)
                    line = record(task, reward, plan, seed, points)
                with out.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                last = line["points"][-1]
                means = {name: sum(scores) / len(scores) for name, scores in last["scores"].items()}
                said = ", ".join(f"{name} {mean:+.3f}" for name, mean in means.items())
                print(f"{reward} {plan} seed {seed}: {last['updates']} updates, {said}", flush=True)


def updates_in_equal_time(costs: dict, updates: int) -> dict[str, int]:
    """Plan -> how many of its updates take the time of `updates` of `full`, by the medians; at least one.

    Args:
        costs: what `cost` wrote.
        updates: of `full`.
    """
    seconds = {cost["plan"]: statistics.median(cost["seconds"]) for cost in costs["costs"]}
    return {plan: max(1, round(updates * seconds["full"] / taken)) for plan, taken in seconds.items()}


def show(given: argparse.Namespace) -> None:
    """Print the tables, and draw the image if asked for."""
    lines: list[dict] = []
    for file in given.files:
        known = [(line["task"], line["reward"], line["plan"], line["seed"]) for line in lines]
        lines += [
            line
            for line in read_lines(Path(file))
            if (line["task"], line["reward"], line["plan"], line["seed"]) not in known
        ]
    print(tables(lines))
    if given.plot:
        plot(lines, Path(given.plot))


def read_lines(path: Path) -> list[dict]:
    """The results in a file, none if there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    given = _parser().parse_args(arguments)
    torch.set_num_threads(given.threads)
    given.run(given)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.estimators",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True)

    cost = commands.add_parser("cost", help="time and memory of one update")
    cost.set_defaults(run=cost_all)
    add = cost.add_argument
    add("--model", choices=list(MODELS), default="emoji", help="what to measure on (default: %(default)s)")
    add("--size", choices=("true", "tiny"), default="true", help="of a model with random weights")
    add("--plans", nargs="+", choices=CONTENDERS, default=list(CONTENDERS), help="estimators and variants")
    add("--without", nargs="+", choices=CONTENDERS, default=[], help="those to leave out")
    add("--steps", type=int, default=50, help="sampling steps N (default: %(default)s)")
    add("--batch", type=int, default=8, help="images of an update (default: %(default)s)")
    add("--rank", type=int, default=8, help="of the LoRA (default: %(default)s)")
    add("--guidance", type=float, default=1.0, help="guidance scale (default: %(default)s)")
    add("--dtype", default="bfloat16", choices=("float32", "bfloat16", "float16"), help="(default: %(default)s)")
    add("--device", default="cpu", choices=("cpu", "cuda"), help="where to compute (default: %(default)s)")
    add("--rounds", type=int, default=5, help="rounds, each with every plan once (default: %(default)s)")
    add("--threads", type=int, default=1, help="torch threads (default: %(default)s)")
    add("--out", help="file for all numbers, JSON")

    learning = commands.add_parser("learn", help="reward at equal time and at equal updates")
    learning.set_defaults(run=learn_all)
    add = learning.add_argument
    add("--base", default="zoo://emoji", help="the model (default: %(default)s)")
    add("--rewards", nargs="+", choices=list(LEARNED), default=list(LEARNED), help="what to learn, one at a time")
    add("--plans", nargs="+", choices=CONTENDERS, default=list(CONTENDERS), help="estimators and variants")
    add("--seeds", type=int, default=3, help="number of seeds (default: %(default)s)")
    add("--first-seed", type=int, default=0, help="the first of them (default: %(default)s)")
    add("--steps", type=int, default=10, help="sampling steps N (default: %(default)s)")
    add("--batch", type=int, default=4, help="images of an update (default: %(default)s)")
    add("--rank", type=int, default=8, help="of the LoRA (default: %(default)s)")
    add("--learning-rate", type=float, default=5e-3, help="of AdamW (default: %(default)s)")
    add("--guidance", type=float, default=1.0, help="guidance scale (default: %(default)s)")
    add("--dtype", default="bfloat16", choices=("float32", "bfloat16"), help="precision (default: %(default)s)")
    add("--updates", type=int, default=10, help="of full; others may make more in its time (default: %(default)s)")
    add("--costs", help="file that `cost` wrote with these plans, steps and batch; without it, equal updates alone")
    add("--heldout", type=int, default=16, help="held-out prompts to measure on (default: %(default)s)")
    add("--train", default=TRAIN, help="parquet with the prompts to learn on (default: %(default)s)")
    add("--prompts", default=HELDOUT, help="parquet with the held-out prompts (default: %(default)s)")
    add("--threads", type=int, default=1, help="torch threads (default: %(default)s)")
    add("--out", required=True, help="results file, JSON lines")
    add("--sheets", help="directory for images of held-out prompts after each run")

    table = commands.add_parser("table", help="show what results files have")
    table.set_defaults(run=show, threads=1)
    table.add_argument("files", nargs="+", help="results files, JSON lines")
    table.add_argument("--plot", help="PNG to write; the files should be of one task")
    return parser


if __name__ == "__main__":
    sys.exit(main())
