"""Align a diffusion model with rewards: `sdo align CONFIG` or `python -m pipelines.align CONFIG [--set a.b=c]`.

    prompts -> Ray Data -> samplers: one retained-graph step  <-> reward actors
                             | adapter gradients   ^ policy versions
                             v                     |
                           Ray Train + DeepSpeed --+---- reports ----> this driver -> MLflow, progress, comparison

The same command again resumes the run, or shows the outcome of a complete one.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import ray

from pipelines.arguments import run_job
from pipelines.progress import Progress
from sdo_ray.cluster import connect
from sdo_ray.config.align import AlignSettings, check_align
from sdo_ray.config.run import keep_settings, open_run
from sdo_ray.evaluation.compare import compare_all
from sdo_ray.evaluation.outcome import Outcome, read_outcome, write_outcome, write_pictures
from sdo_ray.evaluation.pictures import PictureConfig, choose_prompts, make_pictures
from sdo_ray.models.adapter import initial_adapter
from sdo_ray.models.export import export_model
from sdo_ray.models.load import resolve
from sdo_ray.rollout.prompts import read_prompts
from sdo_ray.rollout.records import dump_tensors
from sdo_ray.rollout.reward_client import reward_provenance, start_reward_actors
from sdo_ray.rollout.seeds import derive_seed
from sdo_ray.rollout.stream import contribution_stream
from sdo_ray.tracking.provenance import environment, fingerprint
from sdo_ray.tracking.run import TrackedRun
from sdo_ray.tracking.server import check_server, tracking_uri
from sdo_ray.training.checkpoints import checkpoint_bytes
from sdo_ray.training.group import progress, start_policy_store, train
from sdo_ray.training.worker import WorkerConfig


def align(settings: AlignSettings) -> Outcome:
    """Run or resume the alignment that `settings` describe, saying what happens.

    Raises:
        SettingsError: before anything starts, if it cannot work.
    """
    check_align(settings)
    initial = initial_adapter(settings.model.base, settings.model.lora, derive_seed(settings.run.seed, "adapter", 0))
    run = open_run(settings)
    if (outcome := read_outcome(run)) is not None:
        print(f"{settings.run.name} is complete; its outcome:\n")
        return outcome
    run.check_space(checkpoint_bytes(initial))
    check_server(uri := tracking_uri(run))

    print(f"{settings.run.name}: starting on {connect(settings.demands())}", flush=True)
    rewards = start_reward_actors(settings.rewards.terms)
    store = start_policy_store(settings.training.max_policy_lag)
    prompts = read_prompts(settings.prompts.train, settings.prompts.column)
    done, reports, policy = progress(run)
    keep_settings(run, settings)

    with TrackedRun(uri, settings.tracking.experiment, run, settings.run.name, settings.to_dict()) as tracked:
        tracked.log_updates(reports)
        if done < settings.training.updates:
            print(f"{len(prompts)} prompts; update {done} of {settings.training.updates} comes next", flush=True)
            lines = Progress(settings.training.updates)
            for report in train(
                WorkerConfig(
                    training=settings.training,
                    trainers=settings.trainers,
                    contributions_per_update=settings.contributions_per_update,
                    initial_adapter=dump_tensors(initial),
                    store=store,
                ),
                lambda start: contribution_stream(
                    prompts,
                    settings.sampler_config(),
                    start=start,
                    stop=settings.training.updates,
                    batch_size=settings.training.batch_size,
                    max_policy_lag=settings.training.max_policy_lag,
                    store=store,
                    reward_actors=rewards,
                ),
                run,
            ):
                tracked.log_updates([report])
                print(lines.line(report), flush=True)
            _, _, policy = progress(run)
        assert policy is not None

        print("comparing base and aligned model on held-out prompts", flush=True)
        ray.get(store.publish.remote(settings.training.updates, dump_tensors(policy)))
        held_out = read_prompts(settings.evaluation.prompts, settings.evaluation.column)
        pictures = make_pictures(
            choose_prompts(held_out, settings.evaluation.num_prompts, settings.run.seed),
            PictureConfig(
                settings.run.seed, settings.model, settings.sampling, settings.samplers, settings.training.updates
            ),
            store,
            rewards | start_reward_actors(settings.evaluation.evaluators),
        )
        comparisons = compare_all(pictures)
        places = write_pictures(run, pictures)
        base, adapter = export_model(run, settings.model, policy)
        origin = environment() | reward_provenance(rewards)
        origin |= {"base_model": settings.model.base, "base_model_sha256": fingerprint(resolve(settings.model.base))}
        tracked.log_comparisons(comparisons, places.values())
        places |= {"adapter": adapter, "base model": base, "MLflow": f"mlflow ui --backend-store-uri {uri}"}
        if (model := tracked.register(adapter, base, settings.tracking.register_as, origin)) is not None:
            places["registered model"] = model
        outcome = Outcome(tuple(comparisons), places)
        write_outcome(run, outcome)
    return outcome


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""

    def job(settings: AlignSettings) -> int:
        try:
            print(f"\n{align(settings)}")
        finally:
            ray.shutdown()
        return 0

    return run_job("align", __doc__ or "", AlignSettings, job, arguments)


if __name__ == "__main__":
    sys.exit(main())
