"""Search which steps of a sampler to compute and how to hold the others: `sdo schedule CONFIG [--set a.b=c]`.

    candidates -> actors: sampled beside exact steps -> error, cost -> the next generation, by evolution
               -> the Pareto front, measured anew on other prompts -> schedule.yaml, .parquet, .png, .html, MLflow

`sampling.cache: {schedule: FILE, cost: 0.5}` takes the file. The same command again goes on with a search, or shows the
outcome of a complete one.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipelines.batches import first_batches
from pipelines.called import check_called
from pipelines.job import run_job
from pipelines.run import check_run, known_outcome, tracked_run
from sdo_ray.cheap_steps.schedule_file import write_schedule
from sdo_ray.cluster import connect
from sdo_ray.config.run import keep_reference, model_of, open_run
from sdo_ray.config.schedule import ScheduleSettings, check_schedule
from sdo_ray.driver.state import StateFile
from sdo_ray.exit_codes import ExitCode
from sdo_ray.media.modality import made_by
from sdo_ray.models.load import load_scheduler
from sdo_ray.models.policy import initial_policy
from sdo_ray.prompts.read import read_prompts
from sdo_ray.rollout.records import PromptBatch
from sdo_ray.rollout.reward_client import start_reward_actors
from sdo_ray.settings import under
from sdo_ray.step_search.archive import Archive
from sdo_ray.step_search.candidate import Candidate
from sdo_ray.step_search.costs import Costs
from sdo_ray.step_search.evolution import Measured, next_generation
from sdo_ray.step_search.found import Found, as_parquet, as_text, entries, regular_names, shown, with_best
from sdo_ray.step_search.page import render
from sdo_ray.step_search.plot import plot
from sdo_ray.step_search.settings import Compared
from sdo_ray.step_search.trials import Trial
from sdo_ray.step_search.worker import TrialPool
from sdo_ray.storage import RunDirectory
from sdo_ray.tracking.run import TrackedRun

SCHEDULE, FOUND, IMAGE, PAGE, NUMBERS = (
    "schedule.yaml",
    "schedule.parquet",
    "schedule.png",
    "schedule.html",
    "schedule.json",
)
ERRORS: dict[Compared, str] = {
    "latents": "relative distance of the final latents",
    "rewards": "root mean square difference of the mixed score",
    "gradient": "1 - cosine of the gradient",
}


def check(settings: ScheduleSettings) -> tuple[RunDirectory, ScheduleSettings, str] | list[Found]:
    """All that is checked before anything starts; of a search that is complete, its outcome.

    Returns:
        The run's directory, the settings with the model at the commit that it is read at, and MLflow's address.

    Raises:
        SettingsError: it cannot work.
    """
    check_schedule(settings)
    with under("model"):
        initial_policy(settings.model, settings.run.seed)  # finds wrong names of layers
    run = open_run(settings)
    if (known := known_outcome(run, lambda run: run.read_json(NUMBERS))) is not None:
        return [Found(**one) for one in known]
    read = settings.model_copy(update={"model": model_of(settings.model, run)})
    uri = check_run(settings, run, 10_000_000)
    prompts = {"prompts.train": read_prompts(settings.prompts.train, settings.prompts.column)}
    check_called(
        run.name, read.model.reference, settings.sampling, settings.samplers.batch_size, settings.inputs(), prompts
    )
    return run, read, uri


def search(settings: ScheduleSettings) -> list[Found]:
    """Search, saying what happens; the outcome goes to the run and to MLflow.

    Raises:
        SettingsError: before anything starts, if it cannot work.
    """
    given, ready = settings, check(settings)
    if not isinstance(ready, tuple):
        return ready
    run, settings, uri = ready
    print(f"{settings.run.name}: starting on {connect(settings.demands(), settings.run.wait_for_nodes)}", flush=True)
    rewards = start_reward_actors(settings.terms, made=made_by(settings.model.reference), inputs=settings.columns)
    with tracked_run(given, run, uri) as tracked:
        keep_reference(run, settings.model.reference)
        archive, pool = Archive(run, settings.genes), TrialPool(settings.trial_config(), rewards)
        costs = archive.costs() or _measure_costs(settings, pool, archive)
        _evolve(settings, pool, archive, costs, StateFile(run, "schedule"))
        found = with_best(_measure_anew(settings, pool, archive))
        _keep(settings, run, tracked, archive.known, found)
    return found


def _batches(settings: ScheduleSettings) -> tuple[PromptBatch, ...]:
    """Those to search on, then the others."""
    return first_batches(settings, settings.search.batches + settings.search.check_batches)


def _trial(settings: ScheduleSettings, candidate: Candidate) -> Trial:
    batches, steps = _batches(settings)[: settings.search.batches], settings.sampling.num_inference_steps
    return Trial(settings.genes.cache(candidate), batches, steps, settings.search.compare)


def _measure_costs(settings: ScheduleSettings, pool: TrialPool, archive: Archive) -> Costs:
    """Of every way to hold, with all steps and with one."""
    ways, steps = range(len(settings.search.holds)), settings.sampling.num_inference_steps
    pairs = [(way, count) for way in ways for count in (1, steps)]
    found = pool.costs([_trial(settings, Candidate(way, 0, tuple(range(count)))) for way, count in pairs])
    told = dict(zip(pairs, found, strict=True))
    costs = Costs({way: told[way, steps] for way in ways}, {way: told[way, 1] for way in ways}, steps)
    archive.keep_costs(costs)
    for way, hold in enumerate(settings.search.holds):
        print(
            f"{hold.name}: {costs.held[way]:.2f} of exact steps with one computed, {costs.computed[way]:.2f} with all"
        )
    return costs


def _evolve(settings: ScheduleSettings, pool: TrialPool, archive: Archive, costs: Costs, state: StateFile) -> None:
    """Generation after generation, what is not measured yet."""
    size, seed = settings.search.population, settings.run.seed
    began = time.monotonic()
    for number in range(settings.search.generations):
        before = [one for one in archive.known if one.generation < number]
        made = next_generation(settings.genes, costs, before, number=number, population=size, seed=seed)
        there = {one.candidate for one in archive.known}
        missing = [one for one in made if one not in there]
        for candidate, tried in zip(missing, pool.try_out([_trial(settings, one) for one in missing]), strict=True):
            archive.add(Measured(candidate, number, costs.of(candidate), tried.error))
            state.write(len(archive.known), size * settings.search.generations, "candidates")
        best = min((one for one in archive.known if one.cost <= 0.5), key=lambda one: one.error, default=None)
        said = "" if best is None else f"; nearest at half the cost: {best.error:.4f}"
        seconds = time.monotonic() - began
        print(f"generation {number + 1}/{settings.search.generations}  {seconds:.0f} s{said}", flush=True)


def _measure_anew(settings: ScheduleSettings, pool: TrialPool, archive: Archive) -> list[Found]:
    """What is shown, on the other batches: error, time, gradient, other numbers of steps."""
    some = shown(settings.genes, archive.known, settings.search.shown)
    caches, regular = [settings.genes.cache(candidate) for _, candidate, _ in some], regular_names(settings.genes)
    batches, compare = _batches(settings)[settings.search.batches :], settings.search.compare
    steps = settings.sampling.num_inference_steps
    print(f"measuring {len(some)} of them anew, on other prompts and noise", flush=True)

    def errors(num_steps: int, compare: Compared) -> list[float]:
        return [tried.error for tried in pool.try_out([Trial(cache, batches, num_steps, compare) for cache in caches])]

    timed = list(pool.try_out([Trial(cache, batches, steps, compare) for cache in caches], timed=True))
    gradients = errors(steps, "gradient") if settings.terms else None
    others = {str(n): errors(n, compare) for n in settings.search.check_steps}
    return [
        Found(
            name=name,
            cache=caches[i].model_dump(exclude_defaults=True),
            searched=candidate not in regular,
            cost=timed[i].cost or 0.0,
            error=timed[i].error,
            search_error=None if before is None else before.error,
            cosine=None if gradients is None else 1 - gradients[i],
            other_steps={n: found[i] for n, found in others.items()},
            best=False,
        )
        for i, (name, candidate, before) in enumerate(some)
    ]


def _keep(
    settings: ScheduleSettings, run: RunDirectory, tracked: TrackedRun, known: Sequence[Measured], found: list[Found]
) -> None:
    """Files to the run and to MLflow; the numbers last, as they say that the run is complete."""
    steps, base = settings.sampling.num_inference_steps, settings.model.reference
    about: dict[str, Any] = {
        "model": base,
        "scheduler": type(load_scheduler(base)).__name__,
        "num_inference_steps": steps,
        "guidance_scale": settings.sampling.guidance_scale,
        "error_of": settings.search.compare,
    }
    if settings.sampling.fast_copy is not None:
        about["fast_copy"] = settings.sampling.fast_copy.model_dump(exclude_defaults=True)
    title = f"{base}, N = {steps}: {len(known)} candidates"
    image = plot(known, found, title, ERRORS[settings.search.compare])
    page = render(run.name, f"{title}; error: {ERRORS[settings.search.compare]}", found, run.place(SCHEDULE), image)
    files = {
        SCHEDULE: write_schedule(about, entries(found)).encode(),
        FOUND: as_parquet(found),
        IMAGE: image,
        PAGE: page.encode(),
        NUMBERS: json.dumps([asdict(one) for one in found], indent=2).encode(),
    }
    with tempfile.TemporaryDirectory() as temporary:
        for name, content in files.items():
            (Path(temporary) / name).write_bytes(content)
        numbers = {f"schedule/{one.name}/{key}": getattr(one, key) for one in found for key in ("cost", "error")}
        tracked.log_results(numbers, sorted(Path(temporary).iterdir()))
    for name, content in files.items():
        run.write(name, content)


def job(settings: ScheduleSettings) -> int:
    """Search, and print the outcome; returns the exit code."""
    print(f"\n{as_text(search(settings))}")
    run = RunDirectory(settings.run.storage, settings.run.name)
    print(f"\nfor `sampling.cache: {{schedule: FILE, cost: 0.5}}`  {run.place(SCHEDULE)}\npage  {run.place(PAGE)}")
    return ExitCode.OK


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run_job("schedule", arguments)


if __name__ == "__main__":
    sys.exit(main())
