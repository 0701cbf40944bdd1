"""Compare gradient estimators with full backpropagation: `sdo fidelity CONFIG [--set a.b=c]`.

    prompt batches x (full, single steps, each plan) -> actors: sampling and backward pass <-> reward actors
                                                        -> cosine, norm, bias, variance, price -> table, PNG, MLflow

The same command again shows the numbers of a complete run.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pipelines.batches import first_batches
from pipelines.called import check_called
from pipelines.job import run_job
from pipelines.run import check_run, tracked_run
from sdo_ray.cheap_steps.settings import CheapStepsSettings
from sdo_ray.cluster import connect
from sdo_ray.config.fidelity import FidelityRunSettings, check_fidelity
from sdo_ray.config.run import keep_reference, model_of, open_run
from sdo_ray.driver.state import StateFile
from sdo_ray.exit_codes import ExitCode
from sdo_ray.fidelity.plot import plot
from sdo_ray.fidelity.summary import Fidelity, PlanTally, step_fidelity
from sdo_ray.fidelity.table import as_table
from sdo_ray.fidelity.worker import Work, measure_all
from sdo_ray.media.modality import made_by
from sdo_ray.models.policy import initial_policy
from sdo_ray.prompts.read import read_prompts
from sdo_ray.rollout.reward_client import start_reward_actors
from sdo_ray.rollout.settings import PlanSettings
from sdo_ray.settings import under
from sdo_ray.storage import RunDirectory

NUMBERS, IMAGE = "fidelity.json", "fidelity.png"


def check(settings: FidelityRunSettings) -> tuple[RunDirectory, FidelityRunSettings, str] | Fidelity:
    """All that is checked before anything starts; of a run that is complete, its numbers.

    Returns:
        The run's directory, the settings with the model at the commit that it is read at, and MLflow's address.

    Raises:
        SettingsError: it cannot work.
    """
    check_fidelity(settings)
    with under("model"):
        initial_policy(settings.model, settings.run.seed)  # finds wrong names of layers
    run = open_run(settings)
    if (known := run.read_json(NUMBERS)) is not None:
        print(f"{settings.run.name} is complete; its numbers:\n")
        return Fidelity.from_dict(known)
    read = settings.model_copy(update={"model": model_of(settings.model, run)})
    uri = check_run(settings, run, 10_000_000)
    prompts = {"prompts.train": read_prompts(settings.prompts.train, settings.prompts.column)}
    check_called(
        run.name, read.model.reference, settings.sampling, settings.samplers.batch_size, settings.inputs(), prompts
    )
    return run, read, uri


def compare(settings: FidelityRunSettings) -> Fidelity:
    """Measure what the settings describe, saying what happens; numbers and image go to the run and to MLflow.

    Raises:
        SettingsError: before anything starts, if it cannot work.
    """
    given, ready = settings, check(settings)
    if isinstance(ready, Fidelity):
        return ready
    run, settings, uri = ready
    print(f"{settings.run.name}: starting on {connect(settings.demands(), settings.run.wait_for_nodes)}", flush=True)
    made = made_by(settings.model.reference)
    rewards = start_reward_actors(settings.rewards.terms, made=made, inputs=settings.columns)
    with tracked_run(given, run, uri) as tracked:
        keep_reference(run, settings.model.reference)
        fidelity = _measure(settings, rewards, StateFile(run, "fidelity"))
        with tempfile.TemporaryDirectory() as temporary:
            local = Path(temporary)
            (local / NUMBERS).write_text(json.dumps(fidelity.to_dict(), indent=2))
            plot(fidelity, local / IMAGE, _title(settings))
            tracked.log_results(fidelity.metrics(), [local / NUMBERS, local / IMAGE])
            run.write(IMAGE, (local / IMAGE).read_bytes())
            # The numbers last: they say that the run is complete.
            run.write(NUMBERS, (local / NUMBERS).read_bytes())
    return fidelity


def _measure(settings: FidelityRunSettings, rewards: dict[str, Any], state: StateFile) -> Fidelity:
    """Every plan and step on every batch, a line for each."""
    work = _work(settings)
    tallies: dict[str, PlanTally] = {}
    steps: list[list[torch.Tensor]] = []
    began = time.monotonic()
    for count, done in enumerate(measure_all(work, settings.gradient_config(), rewards), start=1):
        if done.work.plan is None:
            name = "single steps"
            steps.append(done.steps)
        else:
            name = work_name(done.work)
            tally = tallies.setdefault(name, PlanTally(name))
            # `full` is the first of each batch, so its gradient is there.
            tally.add(done.draws, done.draws[0].gradient if name == "full" else tallies["full"].batch_means[-1])
        seconds = time.monotonic() - began
        state.write(count, len(work), "measurements")
        print(f"{count}/{len(work)}  batch {done.work.batch.update + 1}  {name}  {seconds:.0f} s", flush=True)
    numbers, direct = step_fidelity(steps, tallies["full"]) if steps else ([], None)
    exact = tallies[plan_name(settings.fidelity.plans[0])]
    cheap = {work_name(piece) for piece in work if piece.cheap is not None}
    plans = [tally.summary(tallies["full"], exact if name in cheap else None) for name, tally in tallies.items()]
    return Fidelity(plans, numbers, direct, tallies["full"].rewards)


def work_name(work: Work) -> str:
    """As `plan_name`, with the cheap steps."""
    assert work.plan is not None
    if work.cheap is None:
        return plan_name(work.plan)
    return f"{plan_name(work.plan)} {_letters(work.cheap.words)}"


def plan_name(plan: PlanSettings) -> str:
    """A plan in letters that MLflow takes in the name of a metric: `sdo K 2`; `full` is that one with any options."""
    if plan.name == "full":
        return plan.name
    words = (plan.name, *(f"{option} {value}" for option, value in plan.options.items()))
    return _letters(" ".join(words))


def _letters(words: str) -> str:
    """With a dash for each that MLflow does not take."""
    return "".join(c if c.isalnum() or c in " ._-" else "-" for c in words)


def _work(settings: FidelityRunSettings) -> list[Work]:
    singles = [None] if settings.fidelity.steps else []
    full = PlanSettings(name="full", options={"checkpoint": settings.fidelity.checkpoint})
    plans: list[PlanSettings | None] = [full, *singles, *settings.fidelity.plans]
    pieces: list[tuple[PlanSettings | None, CheapStepsSettings | None]] = [(plan, None) for plan in plans]
    pieces += [(settings.fidelity.plans[0], cheap) for cheap in settings.fidelity.cheap_steps]
    return [Work(batch, *piece) for batch in first_batches(settings, settings.fidelity.batches) for piece in pieces]


def _title(settings: FidelityRunSettings) -> str:
    rewards = ", ".join(term.key for term in settings.rewards.terms if term.weight)
    return (
        f"{settings.model.reference}, N = {settings.sampling.num_inference_steps}, {rewards}: "
        f"{settings.fidelity.batches} batches of {settings.samplers.batch_size}, {settings.fidelity.draws} draws"
    )


def job(settings: FidelityRunSettings) -> int:
    """Compare, and print the numbers; returns the exit code."""
    print(f"\n{as_table(compare(settings))}")
    place = f"{settings.run.storage}/{settings.run.name}"
    print(f"\nnumbers  {place}/{NUMBERS}\nimage  {place}/{IMAGE}")
    return ExitCode.OK


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run_job("fidelity", arguments)


if __name__ == "__main__":
    sys.exit(main())
