"""Updates of the embedded model with the demo's LoRA and rewards: their time, operations, latents and gradient."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import torch
from diffusers import DPMSolverMultistepScheduler
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from rewards.alignment import Alignment
from rewards.preference import Preference
from sdo_ray.backprop import StepRunner, differentiable_sample, make_plan
from sdo_ray.models.load import load_pipeline
from sdo_ray.models.parameters import trained_parameters
from sdo_ray.models.trained.lora import LoraSettings, attach
from sdo_ray.rollout.preparation import runner_of
from sdo_ray.rollout.settings import SamplingSettings

PROMPTS = (
    "a red heart",
    "a yellow star",
    "a cat face",
    "a green apple",
    "a blue car",
    "a slice of pizza",
    "a dog",
    "a cup",
)
LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2", "ff.net.0.proj", "ff.net.2"]
GUIDANCE = 3.0


@dataclass(frozen=True)
class Rival:
    """Fewer steps of DPM-Solver++ 2M, all exact."""

    every: int
    """How many of the N steps one of its own stands for."""
    own: bool
    """Whether they are spaced as the solver spaces them, rather than at every so many of the N time steps."""


@dataclass(frozen=True)
class Fewer:
    """Steps of another scheduler, all exact."""

    scheduler: Any
    times: list[int]
    """Its time steps."""


@dataclass(frozen=True)
class Update:
    """What one came to."""

    seconds: float
    """CPU seconds of sampling, decoding and the backward pass from the images; the rewards' own apart."""
    latents: torch.Tensor
    """The final ones."""
    gradient: torch.Tensor
    """Of the rewards at the adapter, as one vector."""


class Operations(TorchDispatchMode):
    """Counts those of matrix products and convolutions within its block, a backward pass's too; attention is made of
    matrix products there, as torch counts no other on a CPU."""

    total = 0

    def __enter__(self) -> Self:
        self._attention = sdpa_kernel(SDPBackend.MATH)
        self._attention.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._attention.__exit__(*error)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        if (count := flop_registry.get(function.overloadpacket)) is not None:
            self.total += count(*args, **(kwargs or {}), out_val=made)
        return made


class Bench:
    """The model, and the rewards of the demo.

    Args:
        steps: N.
        batch: images of an update.
        dtype: of the model, as it samples and as the kept step runs; the adapter is in float32, as in training.
    """

    def __init__(self, steps: int, batch: int, dtype: str) -> None:
        self.steps = steps
        self.pipe: Any = load_pipeline("zoo://emoji", dtype)
        trained = attach(self.pipe.components, LoraSettings(rank=8, alpha=8.0, targets=LAYERS))
        self.bare: Any = load_pipeline("zoo://emoji", "bfloat16")
        self.parameters = list(trained_parameters(trained).values())
        torch.manual_seed(0)
        for p in self.parameters:
            torch.nn.init.normal_(p, std=0.02)
        self.prompts = [PROMPTS[i % len(PROMPTS)] for i in range(batch)]
        self.rewards = ((1.0, Preference()), (5.0, Alignment()))
        self.scheduler = self.pipe.scheduler

    def runner(self, way: dict[str, Any]) -> StepRunner | None:
        """What runs the steps without a graph; to be made once."""
        return runner_of(self.pipe, SamplingSettings.model_validate({"num_inference_steps": self.steps, **way}))

    def touch(self) -> None:
        """Write to the adapter, as every update does: copies have to follow."""
        with torch.no_grad():
            self.parameters[0].add_(0.0)

    def plain(self, seed: int, bare: bool = False) -> float:
        """CPU seconds of the plain call, images decoded; `bare`, of the model in bfloat16 without an adapter."""
        began = time.process_time()
        (self.bare if bare else self.pipe)(output_type="pt", **self._call(seed))
        return time.process_time() - began

    def update(self, seed: int, k: int, how: StepRunner | Rival | Fewer | None) -> Update:
        """One update with one kept step.

        Args:
            seed: of the noise.
            k: the kept step, of N; of fewer, the one that stands for it.
            how: what runs the other steps, or fewer of them.
        """
        call, steps, runner = self._call(seed), self.steps, None
        if isinstance(how, Rival):
            solver = DPMSolverMultistepScheduler.from_config(self.scheduler.config)
            how = Fewer(solver, self._times(solver, how))
        if isinstance(how, Fewer):
            self.pipe.scheduler = how.scheduler
            call |= {"timesteps": how.times, "num_inference_steps": None}
            steps, k = len(how.times), k * len(how.times) // self.steps
        else:
            runner = how
        try:
            began = time.process_time()
            with self._latents() as latents:
                plan = make_plan("sdo", steps, draw="fixed", at=[k])
                images = differentiable_sample(self.pipe, plan, runner=runner, **call)
            seconds = time.process_time() - began
        finally:
            self.pipe.scheduler = self.scheduler
        cotangent = self._cotangent(images)
        began = time.process_time()
        gradients = torch.autograd.grad(images, self.parameters, cotangent)
        seconds += time.process_time() - began
        return Update(seconds, latents[0], torch.cat([g.flatten() for g in gradients]))

    def final_latents(self, seed: int, steps: int) -> torch.Tensor:
        """Of the model's own sampler, by the noise of `update`."""
        latents: torch.Tensor = self.pipe(output_type="latent", **self._call(seed) | {"num_inference_steps": steps})[0]
        return latents / self.pipe.vae.config.scaling_factor

    def times(self, every: int = 1) -> list[int]:
        """One in so many of the N time steps."""
        self.scheduler.set_timesteps(self.steps)
        return list(self.scheduler.timesteps[::every].tolist())

    def _times(self, solver: Any, rival: Rival) -> list[int]:
        if not rival.own:
            return self.times(rival.every)
        solver.set_timesteps(-(-self.steps // rival.every))
        return list(solver.timesteps.tolist())

    @contextmanager
    def _latents(self) -> Iterator[list[torch.Tensor]]:
        """What is handed to the decoder within the block."""
        made: list[torch.Tensor] = []
        decoder = self.pipe.vae.decode

        def decode(z: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            made.append(z.detach().float())
            return decoder(z, *args, **kwargs)

        vars(self.pipe.vae)["decode"] = decode
        try:
            yield made
        finally:
            del vars(self.pipe.vae)["decode"]

    def _cotangent(self, images: torch.Tensor) -> torch.Tensor:
        seen = images.detach().float().requires_grad_()
        score = torch.stack([weight * reward(seen, self.prompts).sum() for weight, reward in self.rewards]).sum()
        return torch.autograd.grad(score, seen)[0].to(images.dtype)

    def _call(self, seed: int) -> dict[str, Any]:
        return {
            "prompt": self.prompts,
            "guidance_scale": GUIDANCE,
            "num_inference_steps": self.steps,
            "generator": torch.Generator().manual_seed(seed),
        }
