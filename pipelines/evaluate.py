"""Compare models on held-out prompts: `sdo evaluate CONFIG` or `python -m pipelines.evaluate CONFIG [--set a.b=c]`.

    prompts -> Ray Data -> image makers, each holding one model at a time  <-> reward actors, feature actor
                             |
                             v parts, kept as they come
                           this driver -> metrics -> pictures.parquet, evaluation.json, report.html -> MLflow

The same command again makes the images that are missing, or shows the outcome of a complete evaluation.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.bar import bar
from pipelines.job import run_job
from pipelines.progress import clock
from pipelines.run import check_run, known_outcome, tracked_run
from rewards.modality import Made
from sdo_ray.cluster import connect
from sdo_ray.config.evaluate import EvaluateSettings, check_evaluate, check_made
from sdo_ray.config.roles import Role, check_roles, find_roles, keep_roles
from sdo_ray.config.run import open_run
from sdo_ray.config.trained_otherwise import said_of_questions, said_of_sampling
from sdo_ray.driver.state import StateFile
from sdo_ray.dry_batch.options import check_options_by_a_call
from sdo_ray.evaluation.about import describe
from sdo_ray.evaluation.features import start_features
from sdo_ray.evaluation.images import ImageConfig, make_images
from sdo_ray.evaluation.metrics import frechet_yardsticks, image_metrics, pixel_distances, set_metrics
from sdo_ray.evaluation.parts import Parts
from sdo_ray.evaluation.reference import reference_features
from sdo_ray.evaluation.report import REPORT, render_report
from sdo_ray.evaluation.result import (
    CANDIDATE,
    IMAGES,
    NUMBERS,
    SHA256_TAG,
    Evaluation,
    evaluation_sha256,
    first_with_pictures,
    read_evaluation,
    write_evaluation,
)
from sdo_ray.evaluation.summary import as_numbers, as_records, as_text, roles_of, said_of_missing
from sdo_ray.exit_codes import ExitCode
from sdo_ray.models.tokens import said_of
from sdo_ray.prompts.inputs import COLUMN, from_column
from sdo_ray.rollout.reward_client import reward_provenance, reward_specs, start_reward_actors
from sdo_ray.settings import at
from sdo_ray.storage import RunDirectory
from sdo_ray.tracking.provenance import environment
from sdo_ray.tracking.run import TrackedRun
from sdo_ray.tracking.server import how_to_look, tracking_uri

Actors = dict[str, Any]
"""Handles by reward name."""


@dataclass(frozen=True)
class Ready:
    """An evaluation that passed every check."""

    run: RunDirectory
    questions: pa.Table
    roles: Mapping[str, Role]
    uri: str
    """MLflow's."""
    made: Made
    """What the models make."""


def check(settings: EvaluateSettings) -> Ready | Evaluation:
    """All that is checked before anything starts; of an evaluation that is complete, its numbers.

    Raises:
        SettingsError: it cannot work.
    """
    questions = check_evaluate(settings)
    run = open_run(settings)
    if (known := known_outcome(run, partial(read_evaluation, pictures=False))) is not None:
        return known
    uri = check_run(settings, run)
    roles = find_roles(settings.models, settings.sampling, uri, settings.prompts.inputs)
    check_roles(run, roles)
    rows = from_column(questions[COLUMN].to_pylist()) if COLUMN in questions.column_names else []
    sampling, size = settings.sampling.with_example_of(rows), settings.samplers.batch_size
    check_options_by_a_call(roles[CANDIDATE].reference, sampling, size)
    made = check_made(settings, {name: role.made for name, role in roles.items()})
    asked = {"prompts.heldout": questions["prompt"].to_pylist()} | settings.sampling.negative_prompts
    with at("models.candidate"):
        cut = said_of(roles[CANDIDATE].reference, asked)
    said = [*cut, *said_of_questions(settings.models, questions), *said_of_sampling(settings.models, settings.sampling)]
    for line in said:
        print(line, flush=True)
    return Ready(run, questions, roles, uri, made)


def evaluate(settings: EvaluateSettings) -> Evaluation:
    """Run, continue or show the evaluation that `settings` describe.

    Raises:
        SettingsError: before anything starts, if it cannot work.
    """
    ready = check(settings)
    if isinstance(ready, Evaluation):
        return ready
    run, questions, roles = ready.run, ready.questions, ready.roles
    print(f"{settings.run.name}: starting on {connect(settings.demands(), settings.run.wait_for_nodes)}", flush=True)
    rewards = start_reward_actors(settings.rewards, made=ready.made, inputs=settings.columns)
    features = None if settings.features is None else start_features(settings.features)
    keep_roles(run, roles)
    with tracked_run(settings, run, ready.uri) as tracked:
        parts = Parts(run)
        _make_missing(settings, questions, parts, roles, rewards, features, StateFile(run, "evaluate"))
        evaluation = _measure(settings, questions, roles, parts, rewards, features, tracked.run_id, ready.made)
        keep(settings, run, evaluation, parts, questions, tracked)
    for line in said_of_missing(evaluation):
        print(f"{settings.run.name}: {line}", flush=True)
    return evaluation


def _make_missing(
    settings: EvaluateSettings,
    questions: pa.Table,
    parts: Parts,
    roles: Mapping[str, Role],
    rewards: Actors,
    features: Any,
    state: StateFile,
) -> None:
    """Make the images that are not there yet."""
    total = len(questions) * len(roles)
    blocks = parts.missing(list(roles), questions, settings.samplers.batch_size)
    done = total - sum(map(len, blocks))
    models = ", ".join(f"{name} {role.where}" for name, role in roles.items())
    print(f"{total} images, {done} of them there already: {models}", flush=True)
    if blocks:
        config = ImageConfig(settings.run.seed, settings.sampling, settings.samplers)
        sources = {name: role.source for name, role in roles.items()}
        arrivals: list[tuple[float, int]] = []
        with bar(total, "images") as move:
            for part in make_images(blocks, config, sources, rewards, features):
                parts.add(part)
                done += len(part)
                arrivals.append((time.monotonic(), done))
                state.write(done, total, "images")
                print(f"images {done}/{total}  {part['role'][0]}  left {_left(arrivals, total)}", flush=True)
                move(done)


def _left(arrivals: Sequence[tuple[float, int]], total: int) -> str:
    """Time left, from (seconds, images done) of each arrival; the first also waited for everything to start."""
    (begin, first), (now, done) = arrivals[0], arrivals[-1]
    return "?" if done == first else clock((now - begin) / (done - first) * (total - done))


def _measure(
    settings: EvaluateSettings,
    questions: pa.Table,
    roles: Mapping[str, Role],
    parts: Parts,
    rewards: Actors,
    features: Any,
    mlflow_run: str,
    made: Made,
) -> Evaluation:
    """Everything that is known about the images, without their files."""
    reference = None
    if settings.reference is not None:
        print(f"measuring reference images of {settings.reference.path}", flush=True)
        reference = reference_features(settings.reference, settings.run.seed, features)
    history, scores = roles[CANDIDATE].history, parts.scores()
    # A picture of what has no pixels is no measure of it.
    pictures = parts.pictures(list(roles), questions) if made.modality in ("image", "video") else ()
    pixels = pixel_distances(pictures, list(roles))
    evaluation = Evaluation(
        name=settings.run.name,
        models={name: role.where for name, role in roles.items()},
        images=image_metrics(scores, list(roles), questions, pixels),
        set_metrics=set_metrics(scores, list(roles), reference),
        details=frechet_yardsticks(scores, list(roles))
        | {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "mlflow_run": mlflow_run,
            "sha256": {name: role.sha256 for name, role in roles.items()},
            "reference_images": 0 if reference is None else len(reference),
            "history": {} if history is None else dict(history.curves),
            "settings": settings.to_dict(),
            "provenance": environment() | reward_provenance(rewards),
        },
    )
    names, learned = (*evaluation.metrics, *evaluation.set_metrics), None if history is None else history.learned
    told = describe(names, reward_specs(rewards), learned)
    return replace(evaluation, details={**evaluation.details, "metrics": told, "comparisons": as_records(evaluation)})


def keep(
    settings: EvaluateSettings,
    run: RunDirectory,
    evaluation: Evaluation,
    parts: Parts,
    questions: pa.Table,
    tracked: TrackedRun,
) -> None:
    """The files, to the run and to MLflow, which notes what they are; the parts are no longer needed."""
    roles = roles_of(evaluation)
    with tempfile.TemporaryDirectory() as temporary:
        local = RunDirectory(temporary, settings.run.name)
        shown = first_with_pictures(evaluation, parts.pictures(roles, questions), settings.report.rows)
        local.write(REPORT, render_report(shown, settings.report).encode())
        write_evaluation(local, evaluation, parts.pictures(roles, questions))
        tracked.log_results(as_numbers(evaluation), sorted(Path(local.path).iterdir()))
        tracked.set_tags({SHA256_TAG: evaluation_sha256(local)})
        for name in (REPORT, IMAGES, NUMBERS):  # the last marks it as complete
            run.copy_file(Path(local.path) / name, name)
    parts.remove()


def job(settings: EvaluateSettings) -> int:
    """Evaluate, and print the outcome; returns the exit code."""
    evaluation = evaluate(settings)
    run = RunDirectory(settings.run.storage, settings.run.name)
    print(f"\n{as_text(evaluation)}\n\nreport  {run.place(REPORT)}\nMLflow  {how_to_look(tracking_uri(run))}")
    return ExitCode.OK


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run_job("evaluate", arguments)


if __name__ == "__main__":
    sys.exit(main())
