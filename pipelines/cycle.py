"""From prompts to a promoted model as one job: `sdo cycle CONFIG` or `python -m pipelines.cycle CONFIG [--set a.b=c]`.

    prepare prompts -> align -> evaluate -> promote
                                   ^           | the champion changed meanwhile: evaluate against the new one
                                   +-----------+

The same command again goes on where it stopped, or shows the outcome of a complete cycle. Exit codes: 0 promoted,
3 refused by the rules, 2 bad input, 4 another driver works on this cycle, 1 failure.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from itertools import count

import ray
from mlflow import MlflowClient

from pipelines.align import align
from pipelines.evaluate import evaluate
from pipelines.job import run_job
from pipelines.run import check_run, known_outcome, tracked_run
from sdo_ray.config.cycle import CycleSettings, check_cycle, check_stages
from sdo_ray.config.run import open_run
from sdo_ray.cycle.record import CycleRecord, Summary, read_summary, write_summary
from sdo_ray.driver.state import StateFile
from sdo_ray.exit_codes import ExitCode
from sdo_ray.promotion.aliases import read_aliases
from sdo_ray.promotion.promote import Promotion, check_champion, promote
from sdo_ray.prompts.prepare import Preparation, prepare
from sdo_ray.registry.versions import CHAMPION, SCHEME
from sdo_ray.settings import under
from sdo_ray.storage import RunDirectory
from sdo_ray.tracking.run import TrackedRun

ATTEMPTS = 5
"""Evaluations of one candidate at most, each but the first because the champion changed during the one before."""

STAGES = 4
"""Prepare, align, evaluate, promote."""

CODES = {"promoted": ExitCode.OK, "refused": ExitCode.REFUSED}
"""Exit codes by decision."""


class ChampionKeepsChanging(RuntimeError):
    """No evaluation was done before another cycle had moved the champion."""


def check(settings: CycleSettings) -> tuple[RunDirectory, str, str] | Summary:
    """All that is checked before anything starts, of all stages; of a complete cycle, its summary.

    Returns:
        The cycle's directory, MLflow's address, the registered model's name.

    Raises:
        SettingsError: it cannot work.
    """
    model = check_cycle(settings)
    run = open_run(settings)
    if (summary := known_outcome(run, read_summary)) is not None:
        return summary
    with tempfile.TemporaryDirectory() as temporary:  # where the prompts are prepared for the checks of the stages
        with under("prompts"):
            prompts = prepare(settings.prompts, RunDirectory(temporary, "check"))
        check_stages(settings, prompts)
    uri = check_run(settings, run)
    check_champion(MlflowClient(uri, uri), model)
    return run, uri, model


def cycle(settings: CycleSettings) -> Summary:
    """Run or resume the cycle that `settings` describe, saying what happens.

    Raises:
        SettingsError: before anything starts, if it cannot work.
        AlreadyRunning: another driver works on it.
        ChampionKeepsChanging: see there.
    """
    ready = check(settings)
    if isinstance(ready, Summary):
        return ready
    run, uri, model = ready
    with tracked_run(settings, run, uri) as tracked:
        with under("prompts"):
            prompts = prepare(settings.prompts, run)
        print(f"{settings.run.name}: {prompts}", flush=True)
        record, state = CycleRecord(run), StateFile(run, "cycle")
        state.write(1, STAGES, "stages")
        candidate = _align(settings, prompts, record, tracked)
        state.write(2, STAGES, "stages")
        promotion = _promote(settings, prompts, candidate, model, record, tracked)
        state.write(STAGES, STAGES, "stages")
        champion = read_aliases(MlflowClient(uri, uri), model).get(CHAMPION)
        summary = Summary(
            settings.run.name,
            promotion.decision,
            promotion.reason,
            candidate,
            None if champion is None else f"{SCHEME}{model}/{champion}",
            CODES[promotion.decision],
            tracked.run_id,
            [asdict(stage) for stage in record.stages.values()],
        )
        print(f"\nsummary: {write_summary(run, summary)}\n")
    return summary


def _align(settings: CycleSettings, prompts: Preparation, record: CycleRecord, tracked: TrackedRun) -> str:
    """The candidate, `models:/NAME/VERSION`."""
    with record.stage("align") as stage:
        if "candidate" not in stage.facts:
            job = settings.align_settings(prompts)
            try:
                outcome = align(job)
            finally:
                ray.shutdown()
                tracked.adopt(RunDirectory(job.run.storage, job.run.name))
            stage.facts["candidate"] = outcome.places["registered model"]
    print(f"candidate: {stage.facts['candidate']}", flush=True)
    return str(stage.facts["candidate"])


def _promote(
    settings: CycleSettings,
    prompts: Preparation,
    candidate: str,
    model: str,
    record: CycleRecord,
    tracked: TrackedRun,
) -> Promotion:
    """Evaluate and promote, anew whenever the champion changes in between, as it did for attempts that are over."""
    client = MlflowClient(tracked.uri, tracked.uri)
    first = next(n for n in count(1) if record.facts(f"promote-{n}").get("decision") != "outdated")
    for attempt in range(first, first + ATTEMPTS):
        with record.stage(f"evaluate-{attempt}") as stage:
            if "champion" not in stage.facts:
                # Kept, so that an evaluation that is resumed is of the same models.
                champion = read_aliases(client, model).get(CHAMPION)
                stage.facts["champion"] = None if champion is None else f"{SCHEME}{model}/{champion}"
                record.keep()
            job = settings.evaluate_settings(prompts, attempt, candidate, stage.facts["champion"])
            try:
                evaluate(job)
            finally:
                ray.shutdown()
                tracked.adopt(RunDirectory(job.run.storage, job.run.name))
        with record.stage(f"promote-{attempt}") as stage:
            promotion = promote(settings.promote_settings(attempt), tracked.uri)
            stage.facts |= promotion.to_dict()
        print(promotion, flush=True)
        if promotion.decision != "outdated":
            return promotion
    raise ChampionKeepsChanging(
        f"{candidate} was evaluated {ATTEMPTS} times, and each time the champion had changed before the rules were "
        "applied; the same command tries again"
    )


def job(settings: CycleSettings) -> int:
    """Run the cycle, and print its summary; returns the exit code."""
    summary = cycle(settings)
    print(summary)
    return summary.exit_code


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run_job("cycle", arguments)


if __name__ == "__main__":
    sys.exit(main())
