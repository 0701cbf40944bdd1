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
from dataclasses import replace
from functools import partial

import torch

from pipelines.align_check import check
from pipelines.bar import bar
from pipelines.heartbeat import Heartbeat, look_at
from pipelines.job import run_job
from pipelines.progress import Progress, StateLog
from pipelines.run import tracked_run
from sdo_ray.cluster import connect
from sdo_ray.config.align import AlignSettings
from sdo_ray.config.calls import companion_decay
from sdo_ray.config.run import keep_reference
from sdo_ray.driver.lock import AlreadyRunning, holder
from sdo_ray.driver.state import StateFile
from sdo_ray.evaluation.closing import closing_evaluation
from sdo_ray.evaluation.images import ImageConfig
from sdo_ray.evaluation.models import PolicyModel
from sdo_ray.evaluation.outcome import Outcome, write_outcome
from sdo_ray.evaluation.summary import said_of_missing
from sdo_ray.exit_codes import ExitCode
from sdo_ray.media.modality import made_by
from sdo_ray.promotion.held_out import HeldOutRules, check_held_out_rules
from sdo_ray.prompts.read import read_prompts
from sdo_ray.registry.handing_out import hand_out
from sdo_ray.rollout.policy_store import Policies, Publisher
from sdo_ray.rollout.reward_client import reward_provenance, start_reward_actors
from sdo_ray.rollout.reward_pool import RewardHandle, health_of, pools
from sdo_ray.rollout.sampler import Sampler
from sdo_ray.rollout.stream import contribution_stream
from sdo_ray.rollout.tensors import dump_tensors
from sdo_ray.rollout.watch import Watch
from sdo_ray.run_page import PAGE, RunPage
from sdo_ray.storage import RunDirectory
from sdo_ray.training.budget import Budget
from sdo_ray.training.channel import Channel
from sdo_ray.training.decisions import Abort, Decider, Observer, RollBack, Stop
from sdo_ray.training.fitting import check_fits
from sdo_ray.training.gauges import RunGauges
from sdo_ray.training.group import RunGivenUp, train
from sdo_ray.training.group_watch import GroupWatch
from sdo_ray.training.health import Health
from sdo_ray.training.standing import end_training, final_policy, has_ended, newest_kept, progress
from sdo_ray.training.update_log import UpdateLog
from sdo_ray.training.worker import WorkerConfig


def align(settings: AlignSettings, observers: Sequence[Observer] = ()) -> Outcome:
    """Run or resume the alignment that `settings` describe, saying what happens.

    Args:
        settings: of the run.
        observers: see every update, once it is on its way to MLflow, and may end training.

    Raises:
        SettingsError: before anything starts, if it cannot work.
        AlreadyRunning: another driver works on the run.
    """
    given, ready = settings, check(settings)
    if isinstance(ready, Outcome):
        return ready
    run, settings, updates = ready.run, ready.settings, settings.training.updates
    if (other := holder(run)) is not None:
        raise AlreadyRunning.by(other, run)
    print(f"{run.name}: starting on {connect(settings.demands(), settings.run.wait_for_nodes)}", flush=True)
    weights = sum(tensor.numel() for tensor in ready.initial.values())
    check_fits(settings.model, weights, settings.training, settings.trainers)
    makes, inputs = made_by(settings.model.reference), settings.columns
    rewards = start_reward_actors(settings.rewards.terms, settings.plan.is_policy_gradient, makes, inputs)
    evaluators = settings.evaluation.evaluators
    watched = start_reward_actors(evaluators, made=makes, inputs=inputs) if settings.evaluation.watch.every else {}
    policies, watch = Policies.start(settings.training.max_policy_lag), Watch.start()
    with tracked_run(given, run, ready.uri) as tracked:
        keep_reference(run, settings.model.reference)
        ready.inputs.keep(run)
        with UpdateLog(tracked) as log:
            log.catch_up(progress(run)[1])
            if not has_ended(run, updates):
                _train(settings, run, ready.initial, policies, rewards, watched, watch, [log, *observers])
        policy = final_policy(run, ready.initial)
        print(f"version {policy.version}: {policy.why}\ncomparing it with the base on held-out prompts", flush=True)
        made = ImageConfig(settings.run.seed, settings.shown_sampling, settings.samplers)
        with Publisher(policies) as publisher:
            publisher.publish(policy.version, dump_tensors(policy.weights))
            scorers = rewards | (watched or start_reward_actors(evaluators, made=makes, inputs=inputs))
            trained = PolicyModel(settings.model, policies, policy.version)
            comparison = closing_evaluation(settings.evaluation, run, trained, made, scorers, settings.columns)
        for line in said_of_missing(comparison):
            print(f"{run.name}: {line}", flush=True)
        learned_from = reward_provenance(rewards)
        outcome = hand_out(
            run, tracked, settings.model, policy.weights, comparison, made, settings.tracking, learned_from
        )
        write_outcome(run, outcome := replace(outcome, updates=updates))
    return outcome


def _train(
    settings: AlignSettings,
    run: RunDirectory,
    initial: dict[str, torch.Tensor],
    policies: Policies,
    rewards: dict[str, RewardHandle],
    watched: dict[str, RewardHandle],
    watch: Watch,
    observers: Sequence[Observer],
) -> None:
    """Updates from the newest checkpoint, or the first, to the last, or until an observer decides otherwise."""
    training, channel, ending = settings.training, Channel.start(), None
    prompts = read_prompts(settings.prompts.train, settings.prompts.column)
    config, inputs = settings.sampler_config(), settings.inputs()
    worker = WorkerConfig(
        settings.model,
        training,
        settings.trainers,
        settings.contributions_per_update,
        tuple(term.key for term in settings.rewards.terms),
        dump_tensors(initial),
        policies,
        channel,
        run,
        settings.samples_per_prompt,
        companion_decay(settings.plan, settings.sampling.num_inference_steps),
        watch,
        settings.samplers.lost_after,
    )
    stream = contribution_stream(
        prompts,
        replace(config, held_out=settings.held_out(watched)),
        Sampler,
        inputs=inputs,
        stop=training.updates,
        batch_size=training.batch_size,
        max_policy_lag=training.max_policy_lag,
        policies=policies,
        reward_actors=rewards,
        watch=watch,
    )
    made, reports = progress(run)
    print(
        f"{len(prompts)} prompts; update {made + 1} of {training.updates} comes next; {run.place(PAGE)} shows all",
        flush=True,
    )
    look = look_at([*(asked := pools(rewards | watched)), watch.actor])
    with (
        RunGauges(run.name, training.updates) as gauges,
        Heartbeat(look) as heartbeat,
        RunPage(run, training.updates, reports) as page,
        bar(training.updates, "updates") as move,
    ):
        health = Health(
            training.max_idle_updates,
            training.max_skipped_share,
            [reward.term for reward in settings.rewards.terms],
            partial(newest_kept, run),
            reports,
        )
        shown: list[Observer] = [Progress(training.updates, move), StateLog(training.updates, StateFile(run, "align"))]
        rules = check_held_out_rules(settings.evaluation.watch.rules, settings.looks_at)
        bounds: list[Observer] = [
            HeldOutRules(rules, policies, run),
            Budget(training.max_hours, training.max_samples, reports),
        ]
        everyone: list[Observer] = [*observers, gauges, *shown, page, *bounds, health, heartbeat]
        if settings.plan.is_policy_gradient:
            everyone.append(GroupWatch(settings.plan, settings.sampling.num_inference_steps))
        decider = Decider(everyone)
        for report in train(worker, stream):
            match decider.decide(replace(report, reward_health=health_of(asked))):
                case Abort(cause):
                    raise RunGivenUp(cause)
                case (Stop() | RollBack()) as decision:
                    page.note(report.update + 1, f"it was decided to end here: {decision.reason}")
                    channel.end(ending := decision, report.update + 1)
    if ending is not None:
        end_training(run, ending)


def job(settings: AlignSettings) -> int:
    """Align, and print the outcome; returns the exit code."""
    print(f"\n{align(settings)}")
    return ExitCode.OK


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run_job("align", arguments)


if __name__ == "__main__":
    sys.exit(main())
