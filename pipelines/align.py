"""Align a diffusion model with rewards: `sdo align CONFIG` or `python -m pipelines.align CONFIG [--set a.b=c]`.

    prompts -> Ray Data -> samplers: one retained-graph step  <-> reward actors
                             | adapter gradients   ^ policy versions
                             v                     |
                           Ray Train + DeepSpeed --+---- reports ----> this driver -> MLflow, progress, comparison

The same command again resumes the run, or shows the outcome of a complete one.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
import ray.data
import torch

from pipelines.job import run_job
from pipelines.progress import Progress
from sdo_ray.cluster import connect
from sdo_ray.config.align import AlignSettings, check_align
from sdo_ray.config.run import keep_settings, open_run
from sdo_ray.evaluation.images import ImageConfig, image_blocks, make_images, side_by_side
from sdo_ray.evaluation.models import ModelSource, PolicyModel, WholeModel
from sdo_ray.evaluation.outcome import IMAGES, SHEET, Outcome, as_metrics, read_outcome, write_images, write_outcome
from sdo_ray.evaluation.result import BASE, CANDIDATE, Evaluation
from sdo_ray.evaluation.summary import summarize
from sdo_ray.exit_codes import ExitCode
from sdo_ray.models.export import export_model, product
from sdo_ray.models.load import resolve
from sdo_ray.models.policy import initial_policy
from sdo_ray.prompts.heldout import draw_questions, read_heldout
from sdo_ray.prompts.read import read_prompts
from sdo_ray.registry.recipe import Recipe
from sdo_ray.registry.registration import examples_of, register_model
from sdo_ray.rollout.policy_store import Policies
from sdo_ray.rollout.records import dump_tensors
from sdo_ray.rollout.reward_client import reward_provenance, start_reward_actors
from sdo_ray.rollout.stream import contribution_stream
from sdo_ray.seeds import derive_seed
from sdo_ray.settings import under
from sdo_ray.storage import RunDirectory
from sdo_ray.tracking.provenance import environment, fingerprint
from sdo_ray.tracking.run import TrackedRun
from sdo_ray.tracking.server import check_server, how_to_look, tracking_uri
from sdo_ray.training.channel import Channel
from sdo_ray.training.checkpoints import checkpoint_bytes
from sdo_ray.training.decisions import Abort, Observer, RollBack, Stop, decide
from sdo_ray.training.gauges import RunGauges
from sdo_ray.training.group import FinalPolicy, RunGivenUp, end_training, final_policy, has_ended, progress, train
from sdo_ray.training.update_log import UpdateLog
from sdo_ray.training.worker import WorkerConfig

Policy = dict[str, torch.Tensor]
"""Name -> weights of the adapter."""
Actors = dict[str, Any]
"""Handles by reward name."""


def align(settings: AlignSettings, observers: Sequence[Observer] = ()) -> Outcome:
    """Run or resume the alignment that `settings` describe, saying what happens.

    Args:
        settings: of the run.
        observers: see every update, after MLflow, the gauges and the progress lines have, and may end training.

    Raises:
        SettingsError: before anything starts, if it cannot work.
    """
    check_align(settings)
    with under("model"):
        initial = initial_policy(settings.model, derive_seed(settings.run.seed, "adapter", 0))
    run = open_run(settings)
    if (outcome := read_outcome(run)) is not None:
        print(f"{settings.run.name} is complete; its outcome:\n")
        return outcome
    run.check_space(checkpoint_bytes(initial))
    check_server(uri := tracking_uri(run))

    print(f"{settings.run.name}: starting on {connect(settings.demands())}", flush=True)
    rewards = start_reward_actors(settings.rewards.terms)
    policies = Policies.start(settings.training.max_policy_lag)
    keep_settings(run, settings)
    with TrackedRun(uri, settings.tracking.experiment, run, settings.run.name, settings.to_dict()) as tracked:
        policy = _train(settings, run, initial, policies, rewards, tracked, observers)
        outcome = _compare(settings, run, policy, policies, rewards, tracked)
        write_outcome(run, outcome)
    return outcome


def _train(
    settings: AlignSettings,
    run: RunDirectory,
    initial: Policy,
    policies: Policies,
    rewards: Actors,
    tracked: TrackedRun,
    observers: Sequence[Observer],
) -> FinalPolicy:
    """Updates from the newest checkpoint, or the first, to the last, or until an observer decides otherwise."""
    training, prompts = settings.training, read_prompts(settings.prompts.train, settings.prompts.column)
    (done, reports), log = progress(run), UpdateLog(tracked)
    log.catch_up(reports)
    if has_ended(run, training.updates):
        return final_policy(run, initial)
    print(f"{len(prompts)} prompts; update {done + 1} of {training.updates} comes next", flush=True)
    channel, ending = Channel.start(), None
    parts = settings.contributions_per_update
    worker = WorkerConfig(settings.model, training, settings.trainers, parts, dump_tensors(initial), policies, channel)

    def stream(start: int) -> ray.data.Dataset:
        return contribution_stream(
            prompts,
            settings.sampler_config(),
            start=start,
            stop=training.updates,
            batch_size=training.batch_size,
            max_policy_lag=training.max_policy_lag,
            policies=policies,
            reward_actors=rewards,
        )

    with RunGauges(settings.run.name, training.updates) as gauges:
        everyone: list[Observer] = [log, gauges, Progress(training.updates), *observers]
        for report in train(worker, stream, run):
            match decide(everyone, report):
                case Abort(cause):
                    raise RunGivenUp(cause)
                case (Stop() | RollBack()) as decision if ending is None:
                    channel.end(ending := decision, report.update + 1)
    if ending is not None:
        end_training(run, ending)
    return final_policy(run, initial)


def _compare(
    settings: AlignSettings,
    run: RunDirectory,
    policy: FinalPolicy,
    policies: Policies,
    rewards: Actors,
    tracked: TrackedRun,
) -> Outcome:
    """An evaluation of base and aligned model on held-out prompts; what comes of it to the run and to MLflow."""
    print(f"version {policy.version}: {policy.why}", flush=True)
    print("comparing base and aligned model on held-out prompts", flush=True)
    seed, evaluation = settings.run.seed, settings.evaluation
    policies.publish(policy.version, dump_tensors(policy.weights))
    evaluators = rewards | start_reward_actors(evaluation.evaluators)
    heldout = read_heldout(evaluation.prompts, evaluation.column)
    questions = draw_questions(heldout, evaluation.num_prompts, seed)
    models: dict[str, ModelSource] = {
        BASE: WholeModel(settings.model.base, settings.model.dtype),
        CANDIDATE: PolicyModel(settings.model, policies, policy.version),
    }
    blocks = image_blocks(models, questions, settings.samplers.batch_size)
    config = ImageConfig(seed, settings.sampling, settings.samplers)
    images = side_by_side(list(make_images(blocks, config, models, evaluators)), models, questions)
    comparison = Evaluation(settings.run.name, {BASE: settings.model.base, CANDIDATE: run.uri}, images)
    lines = summarize(comparison)
    origin = environment() | reward_provenance(rewards)
    origin |= {"base_model": settings.model.base, "base_model_sha256": fingerprint(resolve(settings.model.base))}
    with tempfile.TemporaryDirectory() as temporary:
        local = Path(temporary)
        tracked.log_results(as_metrics(lines), write_images(local, comparison))
        base, trained = export_model(local, settings.model, policy.weights), product(settings.model)
        places = {
            "before/after sheet": run.place(SHEET),
            "all images and scores": run.place(IMAGES),
            trained: run.place(trained),
            "base model": run.place(base) if base else settings.model.base,
            "MLflow": how_to_look(tracked.uri),
        }
        run.copy_in(local)
        recipe = Recipe.of(settings.sampling, settings.model.dtype, settings.samplers.batch_size)
        examples = examples_of(questions["prompt"].to_pylist(), seed)
        tracked.set_tags(origin)
        model = None
        if settings.tracking.register_as is not None:
            model = register_model(
                tracked.client,
                tracked.run_id,
                settings.tracking.register_as,
                local,
                settings.model.base,
                recipe,
                examples=examples,
                provenance=origin,
                copy_base=settings.tracking.copy_hub_base,
            )
    return Outcome(tuple(lines), places | ({"registered model": model} if model else {}))


def job(settings: AlignSettings) -> int:
    """Align, and print the outcome; returns the exit code."""
    print(f"\n{align(settings)}")
    return ExitCode.OK


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run_job("align", arguments)


if __name__ == "__main__":
    sys.exit(main())
