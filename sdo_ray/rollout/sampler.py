"""The sampler actor: a Ray Data callable that turns prompts into contributions.

Ray Data calls it from several threads, as many as `SamplerConfig.in_flight`. One of them computes at a time; while a
batch waits for its rewards, the next is sampled.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pyarrow as pa
import torch

from rewards.pulls import Memory
from sdo_ray.models.checkpointing import checkpoint_as_set
from sdo_ray.models.fingerprint import fingerprint
from sdo_ray.models.parameters import set_parameters, trained_values
from sdo_ray.models.policy import attach_working_copy, initial_policy, load_model
from sdo_ray.rollout.answers import Answers
from sdo_ray.rollout.attempts import Attempts, merged
from sdo_ray.rollout.contribution import learn_from, sample_batch
from sdo_ray.rollout.deadline import deadline
from sdo_ray.rollout.groups import groups_of
from sdo_ray.rollout.held_out import held_out_scores
from sdo_ray.rollout.kept_graph import choose_kept_graph
from sdo_ray.rollout.looks import HeldOut, HeldOutMeans
from sdo_ray.rollout.other_policies import Weights
from sdo_ray.rollout.policy_store import Policies
from sdo_ray.rollout.preparation import prepare
from sdo_ray.rollout.preview import preview
from sdo_ray.rollout.records import Contribution, PromptBatch
from sdo_ray.rollout.reward_client import RewardClient, reward_specs
from sdo_ray.rollout.sampler_config import SamplerConfig
from sdo_ray.rollout.tensors import load_tensors, memory_of, parted
from sdo_ray.rollout.watch import BatchFailed, Disagreement, Watch
from sdo_ray.seeds import derive_seed


class Sampler:
    """Samples with one retained-graph step and takes the rewards' gradient back to the adapter.

    Args:
        config: what to do.
        policies: where they come from.
        reward_actors: handles by reward name.
        watch: is told what it does.
    """

    def __init__(
        self, config: SamplerConfig, policies: Policies, reward_actors: Mapping[str, Any], watch: Watch
    ) -> None:
        torch.set_num_threads(max(1, int(config.samplers.num_cpus)))
        self._config = config
        self._policies = policies
        self._watch = watch
        self._device = "cuda" if config.samplers.num_gpus else "cpu"
        self._learned = [reward.key for reward in config.mix.terms if reward.weight]
        self._rewards = RewardClient(reward_actors, self._learned, self._device)
        self._version, self._memory, self._waiting = -1, Memory(), 0
        self._free = threading.Condition()
        self._attempts = Attempts(self._make, lambda: self._version, watch.say)
        self._broken: Exception | None = None
        watch.stay_in_touch()
        try:
            with watch.starting():
                self._load(reward_actors)
        except Exception as error:  # raised by a call: an actor that cannot start is started again and again
            self._broken = error

    def _load(self, reward_actors: Mapping[str, Any]) -> None:
        config = self._config
        self._pipeline = load_model(config.model, self._device)
        parts = {name: part for name, part in self._pipeline.components.items() if isinstance(part, torch.nn.Module)}
        weights = {f"{name}.{key}": w for name, part in parts.items() for key, w in part.state_dict().items()}
        self._watch.agree("the base model's weights", "a sampler", fingerprint(weights))
        self._trained = attach_working_copy(self._pipeline.components, config.model)
        checkpoint_as_set(self._pipeline, config.model.checkpoint_blocks)
        self._runner = prepare(self._pipeline, config.sampling, config.samplers)
        specs = reward_specs(reward_actors)
        self._differentiable = any(specs[key].differentiable for key in self._learned)
        self._kept_graph = choose_kept_graph(
            self._pipeline, config.sampling, config.plan, config.samplers, config.mix.looks_at_some_frames
        )
        self._corrects, self._by_average, self._others = False, False, dict[str, Weights]()
        if config.plan.is_policy_gradient:
            plan = groups_of(self._pipeline, config.sampling, config.plan, torch.Generator()).plan
            self._corrects = plan.corrects
            self._by_average = plan.forward is not None and plan.forward.samples_by_average
            anchored = plan.is_anchored
        else:
            anchored = bool(config.anchor)
        if anchored:
            self._others["base"] = initial_policy(config.model, derive_seed(config.seed, "adapter", 0))

    def __call__(self, block: pa.Table) -> pa.Table:
        """A block of `schedule` -> one row of `Contribution.to_arrow`.

        Raises:
            BatchFailed: it cannot be had, and must not be skipped.
        """
        if self._broken is not None:
            raise BatchFailed(f"a sampler could not start: {self._broken}") from self._broken
        batch, config = PromptBatch.from_arrow(block), self._config
        with self._watch.batch(batch):
            parts = [self._attempts(part) for part in batch.parts(config.samplers.batch_size)]
            contribution = merged(parts) if len(parts) > 1 else parts[0]
            if batch.rows[0] in config.preview_rows:
                with self._computing(batch):
                    sheet = preview(
                        self._pipeline,
                        config.sampling,
                        config.preview_prompts,
                        config.seed,
                        config.samplers.batch_size,
                        self._runner,
                        config.preview_inputs,
                    )
                contribution = replace(contribution, preview=sheet)
            if (held_out := config.held_out) is not None and batch.rows[0] in held_out.rows:
                contribution = replace(contribution, held_out=self._look(held_out, batch))
        return contribution.to_arrow(config.samplers.gradient_dtype)

    def _look(self, held_out: HeldOut, batch: PromptBatch) -> HeldOutMeans:
        config = self._config
        with self._computing(batch):
            means = held_out_scores(
                self._pipeline, config.sampling, held_out, config.seed, config.samplers.batch_size, self._runner
            )
            return HeldOutMeans(self._version, means)

    def _make(self, batch: PromptBatch) -> Contribution:
        config = self._config
        with self._computing(batch):
            self._adopt_policy(batch.update)
            waiting = sample_batch(
                self._pipeline,
                batch,
                self._version,
                seed=config.seed,
                sampling=config.sampling,
                plan=config.plan,
                backward=config.backward,
                kept_graph=self._kept_graph,
                differentiable=self._differentiable,
                runner=self._runner,
                anchor=config.anchor,
            )
            self._waiting += 1
        try:
            prompts = {reward.key: waiting.prompts for reward in config.mix.terms}
            asked = self._rewards.begin(_shown(waiting.trajectory.samples), prompts, waiting.reward_seeds(config.seed))
            answers = Answers(asked, config.mix.terms, self._watch.say)
            terms, scores, gradients = answers.learned()
            with self._computing(batch):
                if self._corrects:
                    self._adopt_policy(batch.update)
                contribution = learn_from(
                    self._pipeline,
                    waiting,
                    scores,
                    gradients,
                    terms=terms,
                    mixing=config.mix.mixing,
                    memory=self._memory,
                    version=self._version,
                    others=self._others,
                )
        finally:
            with self._free:
                self._waiting -= 1
                self._free.notify_all()
        return contribution.with_scores(prompts, answers.watched(len(waiting.prompts)))

    @contextmanager
    def _computing(self, batch: PromptBatch) -> Iterator[None]:
        """Alone on the device."""
        with self._free, deadline(self._config.samplers.timeout, str(batch)):
            yield

    def _adopt_policy(self, update: int) -> None:
        """The newest policy up to `update`; a batch that waits for rewards keeps the one that sampled it, but where the
        plan corrects for a newer one."""
        while (
            self._waiting and not self._corrects and not update - self._config.max_policy_lag <= self._version <= update
        ):
            self._free.wait()
        if self._waiting and not self._corrects:
            return
        version, weights = self._policies.newest(update, known=self._version)
        if weights is not None:
            newest, average = parted(load_tensors(weights))
            if average is not None:
                self._others["average"] = average
            if self._by_average and average is not None:
                self._others["newest"] = newest
            sampling = average if self._by_average and average is not None else newest
            set_parameters(self._trained, sampling)
            if self._version < 0:
                self._check_policy(version, newest, sampling)
            self._memory = memory_of(weights)
            self._version = version

    def _check_policy(self, version: int, newest: Weights, sampling: Weights) -> None:
        """The first policy of all is the one that was published, and is what samples."""
        self._watch.agree(f"the weights of policy version {version}", "a sampler", fingerprint(newest))
        for name, weights in trained_values(self._trained).items():
            if not torch.equal(weights, sampling[name].to(weights)):
                raise Disagreement(f"a sampler has other weights in {name} than were published")


def _shown(samples: torch.Tensor) -> torch.Tensor:
    """What rewards are given, [B, 3, H, W] in [0, 1]; in float16, which holds all of it, where 16 bits were made."""
    return samples.detach().to(torch.float32 if samples.dtype == torch.float32 else torch.float16)
