"""The embedded model, rewards with and without a gradient, one estimator, and the work that it takes.

Work is counted in rows of denoiser calls, guidance included: forward passes, and backward passes as two.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rewards import create
from rewards.pulls import Memory
from rewards.scoring import score, score_with_gradient
from rewards.terms import Mixing, RewardTerm
from sdo_ray.backprop.denoiser_rows import denoiser_rows
from sdo_ray.models.denoisers import find_denoisers
from sdo_ray.models.load import load_pipeline
from sdo_ray.models.parameters import trained_parameters
from sdo_ray.models.trained.lora import LoraSettings, attach
from sdo_ray.policy_gradient import make_policy_plan
from sdo_ray.rollout.contribution import compute_contribution
from sdo_ray.rollout.records import Contribution, PromptBatch
from sdo_ray.rollout.settings import PlanSettings, SamplingSettings

PLANS: Mapping[str, PlanSettings] = {
    "sdo": PlanSettings(name="sdo"),
    "group": PlanSettings(name="group", options={"children": 8}),
    "group-24": PlanSettings(name="group", options={"children": 24}),
    "tempflow": PlanSettings(name="tempflow", options={"seeds": 2, "children": 4, "kernel": "cps"}),
    "flow-grpo": PlanSettings(name="flow-grpo", options={"samples": 8, "kernel": "ddim", "eta": 1.0}),
    "dance-grpo": PlanSettings(name="dance-grpo", options={"samples": 8, "kernel": "ddim", "eta": 1.0}),
    "branch-grpo": PlanSettings(name="branch-grpo", options={"splits": [0, 2, 4], "kernel": "ddim", "eta": 1.0}),
    "pair": PlanSettings(name="pair", options={"pairs": 4}),
}
"""Eight images a prompt, but for `group-24`. The embedded model is not of flow matching, so kernels are DDIM's."""


def samples_of(plan: PlanSettings, num_steps: int) -> int:
    """Images of one prompt."""
    if not plan.is_policy_gradient:
        return 1
    return make_policy_plan(plan.name, num_steps, generator=torch.Generator(), **plan.options).samples


@dataclass(frozen=True)
class Setting:
    """What is the same for all that is compared."""

    steps: int
    guidance: float
    rank: int
    learning_rate: float


@dataclass(frozen=True)
class Made:
    """One batch."""

    gradient: torch.Tensor
    """Of the mean reward, as one vector."""
    rows: int
    """Of work."""
    unshared: int
    """What the same images and gradients would take if each image were sampled, and learned from, by itself."""
    seconds: float
    """Of CPU time."""
    parts: Mapping[str, float]
    """What rewards with a gradient and those without are to one another: norms of each, and cosines."""


class Run:
    """One estimator learning.

    Args:
        setting: what is compared under.
        plan: the estimator.
        rewards: names with weights.
        hidden: rewards that a policy-gradient estimator is shown without their gradient.
        seed: of noise and kept steps. All have the same adapter, as gradients are compared by its parameters.
        b: standard deviation of the adapter's second factors; 0 is the start of a training, where the first ones have
            no gradient.
        mixing: how gradients of several rewards become one.
    """

    def __init__(
        self,
        setting: Setting,
        plan: PlanSettings,
        rewards: Mapping[str, float],
        hidden: Sequence[str],
        seed: int,
        b: float = 0.0,
        mixing: Mixing = Mixing(),  # noqa: B008 (frozen)
    ) -> None:
        torch.manual_seed(0)
        self.plan, self.seed, self.mixing, self._memory = plan, seed, mixing, Memory()
        self.terms = [RewardTerm(name, weight) for name, weight in rewards.items()]
        self.teachers = {name: create(name) for name in rewards}
        self.shown = [name for name in rewards if type(self.teachers[name]).differentiable]
        if plan.is_policy_gradient:
            self.shown = [name for name in self.shown if name not in hidden]
        self.pipeline = load_pipeline("zoo://emoji")
        attach(self.pipeline.components, LoraSettings(rank=setting.rank, alpha=float(setting.rank)))
        self.denoisers = find_denoisers(self.pipeline)
        self.parameters = trained_parameters(self.denoisers)
        if b:
            for name, parameter in self.parameters.items():
                if "lora_B" in name:
                    torch.nn.init.normal_(parameter.data, std=b)
        self.sampling = SamplingSettings(num_inference_steps=setting.steps, guidance_scale=setting.guidance)

    def batch(self, update: int, prompts: Sequence[str], first_row: int) -> Made:
        """Sample and differentiate a batch of these prompts."""

        def rewards(images: torch.Tensor, texts: Sequence[str], seeds: Sequence[int]) -> Any:
            scores, gradients = {}, {}
            for name, teacher in self.teachers.items():
                if name in self.shown:
                    scores[name], gradients[name] = score_with_gradient(teacher, images, list(texts))
                else:
                    scores[name], gradients[name] = score(teacher, images, list(texts)), None
            return scores, gradients

        batch = PromptBatch(update, tuple(range(first_row, first_row + len(prompts))), tuple(prompts))
        began = time.process_time()
        with denoiser_rows(self.denoisers.values()) as work:
            made = compute_contribution(
                self.pipeline,
                batch,
                update,
                seed=self.seed,
                sampling=self.sampling,
                plan=self.plan,
                rewards=rewards,
                terms=self.terms,
                mixing=self.mixing,
                memory=self._memory,
                differentiable=bool(self.shown),
            )
        self._memory = self._memory.after(made.pulls)
        vector = torch.cat([made.gradient[name].flatten() for name in self.parameters])
        guided = 2 if (self.sampling.guidance_scale or 0) > 1 else 1
        alone = guided * (self.sampling.num_inference_steps + 2 * len(made.step_norms))
        seconds = time.process_time() - began
        return Made(vector / max(1, made.num_samples), work.count, made.num_rows * alone, seconds, _parts(made))

    def sizes(self) -> list[int]:
        """Of the parameters, in the order of the gradient."""
        return [parameter.numel() for parameter in self.parameters.values()]


def _parts(made: Contribution) -> dict[str, float]:
    """Norms of the pulls of rewards with and without a gradient at kept steps, of each reward's at images, cosines."""
    groups = {name: made.groups[name] for name in ("gradient_norm", "group_norm", "cosine") if name in made.groups}
    norms = {f"norm of {name}": pull.norm for name, pull in made.pulls.items() if pull.norm is not None}
    return groups | norms | {f"cosine of {pair}": value for pair, value in made.cosines.items()}
