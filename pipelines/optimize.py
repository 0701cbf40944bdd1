"""Optimise single images against rewards, the model frozen: `sdo optimize CONFIG [--set a.b=c]`.

    rows (prompt, target) -> Ray Data -> optimizers: the gradient of one sampling step   <-> reward actors
                                          to each row's latents, prompt embeddings or guidance scale
                                            |
                                            v
                                          this driver -> results, before/after sheet, MLflow

The same command again does the rows that are missing, or shows the outcome of a complete run.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.bar import bar
from pipelines.called import check_called
from pipelines.job import run_job
from pipelines.run import check_run, known_outcome, tracked_run
from sdo_ray.cluster import connect
from sdo_ray.config.optimize import OptimizeSettings, check_optimize
from sdo_ray.config.run import keep_reference, open_run, reference_of
from sdo_ray.driver.state import StateFile
from sdo_ray.exit_codes import ExitCode
from sdo_ray.input_optimization.optimizer import optimize_rows
from sdo_ray.input_optimization.records import RowBatch
from sdo_ray.input_optimization.results import (
    RESULTS,
    SHEET,
    Outcome,
    Parts,
    changes,
    curves,
    parquet,
    read_outcome,
    sheet,
    write_outcome,
)
from sdo_ray.input_optimization.rows import batches
from sdo_ray.media.modality import made_by
from sdo_ray.registry.base_model import base_model_sha256
from sdo_ray.rollout.reward_client import reward_provenance, start_reward_actors
from sdo_ray.storage import RunDirectory
from sdo_ray.tracking.provenance import environment
from sdo_ray.tracking.run import TrackedRun
from sdo_ray.tracking.server import how_to_look

BYTES_A_ROW = 4_000_000
"""Room for two images and what was optimised."""


@dataclass(frozen=True)
class Ready:
    """A run that passed every check."""

    run: RunDirectory
    settings: OptimizeSettings
    """With the model at the commit that it is read at."""
    parts: Parts
    missing: list[RowBatch]
    num_rows: int
    uri: str
    """MLflow's."""


def check(settings: OptimizeSettings) -> Ready | Outcome:
    """All that is checked before anything starts; of a run that is complete, its outcome.

    Raises:
        SettingsError: it cannot work.
    """
    check_optimize(settings)
    run, work = open_run(settings), batches(settings.texts(), settings.samplers.batch_size, settings.inputs())
    if (outcome := known_outcome(run, read_outcome)) is not None:
        return outcome
    parts = Parts(run)
    missing, num_rows = parts.missing(work), sum(len(batch.rows) for batch in work)
    base = settings.model.model_copy(update={"base": reference_of(settings.model.base, run)})
    read, uri = settings.model_copy(update={"model": base}), check_run(settings, run, num_rows * BYTES_A_ROW)
    rows = {f"rows.{settings.rows.column}": settings.texts()[settings.rows.column]}
    check_called(run.name, base.base, settings.sampling, settings.samplers.batch_size, settings.inputs(), rows)
    return Ready(run, read, parts, missing, num_rows, uri)


def optimize(settings: OptimizeSettings) -> Outcome:
    """Run or resume the optimisation that `settings` describe, saying what happens.

    Raises:
        SettingsError: before anything starts, if it cannot work.
    """
    given, ready = settings, check(settings)
    if isinstance(ready, Outcome):
        return ready
    run, settings, parts = ready.run, ready.settings, ready.parts
    print(f"{settings.run.name}: starting on {connect(settings.demands(), settings.run.wait_for_nodes)}", flush=True)
    rewards = start_reward_actors(
        settings.rewards.terms, settings.plan.is_policy_gradient, made=made_by(settings.model.base)
    )
    with tracked_run(given, run, ready.uri) as tracked:
        keep_reference(run, settings.model.base)
        _optimize(settings, ready.missing, ready.num_rows, parts, rewards, StateFile(run, "optimize"))
        outcome = _finish(settings, run, pa.concat_tables(parts.read()), rewards, tracked)
        write_outcome(run, outcome)
    return outcome


def _optimize(
    settings: OptimizeSettings,
    missing: list[RowBatch],
    num_rows: int,
    parts: Parts,
    rewards: dict[str, Any],
    state: StateFile,
) -> None:
    """The batches that are missing, each kept when it is done."""
    done = num_rows - sum(len(batch.rows) for batch in missing)
    if not missing:
        return
    print(f"{num_rows} rows, {done} done; {settings.optimization.iterations} iterations each", flush=True)
    with bar(num_rows, "rows") as move:
        for part in optimize_rows(missing, settings.optimizer_config(), rewards):
            parts.add(part)
            done += len(part)
            state.write(done, num_rows, "rows")
            moved = "  ".join(f"{change.reward} {change.before:.3g} -> {change.after:.3g}" for change in changes(part))
            print(f"rows {done}/{num_rows}  {moved}", flush=True)
            move(done)


def _finish(
    settings: OptimizeSettings, run: RunDirectory, results: pa.Table, rewards: dict[str, Any], tracked: TrackedRun
) -> Outcome:
    """Results, sheet and numbers to the run and to MLflow."""
    origin = environment() | reward_provenance(rewards)
    origin |= {"base_model": settings.model.base, "base_model_sha256": base_model_sha256(settings.model.base)}
    with tempfile.TemporaryDirectory() as temporary:
        files = [Path(temporary) / RESULTS, Path(temporary) / SHEET]
        for file, content in zip(files, (parquet(results), sheet(results, settings.rows.column)), strict=True):
            file.write_bytes(content)
        tracked.log_curves(curves(results), origin)
        tracked.log_results({}, files)
        run.copy_in(Path(temporary))
    places = {
        "before/after sheet": run.place(SHEET),
        "images, scores, variables": run.place(RESULTS),
        "MLflow": how_to_look(tracked.uri),
    }
    return Outcome(len(results), tuple(changes(results)), places)


def job(settings: OptimizeSettings) -> int:
    """Optimise, and print the outcome; returns the exit code."""
    print(f"\n{optimize(settings)}")
    return ExitCode.OK


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run_job("optimize", arguments)


if __name__ == "__main__":
    sys.exit(main())
