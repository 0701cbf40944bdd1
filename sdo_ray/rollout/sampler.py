"""The sampler actor: a Ray Data callable that turns prompts into contributions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa
import torch

from rewards.pulls import Memory
from sdo_ray.models.checkpointing import checkpoint_blocks
from sdo_ray.models.parameters import set_parameters
from sdo_ray.models.policy import attach_working_copy, load_model
from sdo_ray.rollout.contribution import compute_contribution
from sdo_ray.rollout.kept_graph import choose_kept_graph
from sdo_ray.rollout.policy_store import Policies
from sdo_ray.rollout.preparation import prepare
from sdo_ray.rollout.preview import preview
from sdo_ray.rollout.records import PromptBatch, SamplerConfig, load_tensors, memory_of
from sdo_ray.rollout.reward_client import RewardClient, reward_specs
from sdo_ray.settings import SettingsError


class Sampler:
    """Samples with one retained-graph step and takes the rewards' gradient back to the adapter.

    Args:
        config: what to do.
        policies: where they come from.
        reward_actors: handles by reward name.
    """

    def __init__(self, config: SamplerConfig, policies: Policies, reward_actors: Mapping[str, Any]) -> None:
        torch.set_num_threads(max(1, int(config.samplers.num_cpus)))
        self._config = config
        self._policies = policies
        self._version, self._memory = -1, Memory()
        self._refused: SettingsError | None = None
        try:
            self._load("cuda" if config.samplers.num_gpus else "cpu")
        except SettingsError as error:
            self._refused = error  # and raised by a call: an actor that cannot start is started again and again
            return
        self._terms = [term.term for term in config.mix.terms]
        learned = [term.key for term in self._terms if term.weight]
        specs = reward_specs(reward_actors)
        self._differentiable = any(specs[key].differentiable for key in learned)
        self._rewards = RewardClient(reward_actors, learned)

    def _load(self, device: str) -> None:
        config = self._config
        self._pipeline = load_model(config.model, device)
        self._trained = attach_working_copy(self._pipeline.components, config.model)
        if config.model.checkpoints_blocks(device):
            checkpoint_blocks(self._pipeline.components.values())
        prepare(self._pipeline, config.sampling, config.samplers)
        self._kept_graph = choose_kept_graph(self._pipeline, config.sampling, config.plan, config.samplers)

    def __call__(self, block: pa.Table) -> pa.Table:
        """A block of `schedule` -> one row of `Contribution.to_arrow`."""
        if self._refused is not None:
            raise self._refused
        batch = PromptBatch.from_arrow(block)
        self._adopt_newest_policy(batch.update)
        contribution = compute_contribution(
            self._pipeline,
            batch,
            self._version,
            seed=self._config.seed,
            sampling=self._config.sampling,
            plan=self._config.plan,
            rewards=self._rewards,
            terms=self._terms,
            mixing=self._config.mix.mixing,
            memory=self._memory,
            backward=self._config.backward,
            kept_graph=self._kept_graph,
            differentiable=self._differentiable,
        )
        if batch.rows[0] in self._config.preview_rows:
            config = self._config
            sheet = preview(
                self._pipeline, config.sampling, config.preview_prompts, config.seed, config.samplers.batch_size
            )
            contribution = replace(contribution, preview=sheet)
        return contribution.to_arrow(self._config.samplers.gradient_dtype)

    def _adopt_newest_policy(self, update: int) -> None:
        version, weights = self._policies.newest(update, known=self._version)
        if weights is not None:
            set_parameters(self._trained, load_tensors(weights))
            self._memory = memory_of(weights)
            self._version = version
