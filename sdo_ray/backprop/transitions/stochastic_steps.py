"""The stochastic steps of one pipeline call: fresh noise after them, a row's own or one that several rows share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from sdo_ray.backprop.errors import PlanError
from sdo_ray.backprop.transitions.branching import Branching
from sdo_ray.backprop.transitions.transition import Transition


@dataclass(frozen=True, eq=False)
class StochasticSteps:
    """Which steps of a call are stochastic, and how its rows part there. For one call.

    Attributes:
        transitions: step -> its transition.
        generators: CPU generators of the fresh noise, one for each row of the call's latents.
        branching: which rows are the same until when. They are sampled from the same initial noise and prompt, and
            denoised once.
        mirrored: whether of two neighbouring rows that differ the second has the first's noise with the other sign.
        differentiable: whether later steps and the samples have a gradient with respect to the steps' outputs, for
            rewards that have one.
        noise: step -> eps, float32 on the CPU, [B, C, ...], of the steps that have been made.
        recorded: steps whose latents are kept in `latents`.
        latents: step -> z, before it, without a graph.
        newest: of one entry, the latents after the newest step, without a graph; z_N once the call has ended.

    Raises:
        PlanError: the rows are no whole groups; a split is not at a stochastic step; mirrored rows are not two.
    """

    transitions: Mapping[int, Transition]
    generators: Sequence[torch.Generator]
    branching: Branching = field(default_factory=Branching)
    mirrored: bool = False
    differentiable: bool = False
    recorded: Sequence[int] = ()
    noise: dict[int, torch.Tensor] = field(default_factory=dict)
    latents: dict[int, torch.Tensor] = field(default_factory=dict)
    newest: list[torch.Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        leaves = self.branching.leaves
        if len(self.generators) % leaves:
            legal = f"a multiple of {leaves}: whole groups"
            raise PlanError("rows", len(self.generators), legal, "change the batch or the group")
        if outside := sorted(set(self.branching.splits) - set(self.transitions)):
            raise PlanError("splits", outside, f"stochastic steps: {sorted(self.transitions)}", "split at one of them")
        if self.mirrored and any(self._runs(step) % 2 for step in self.transitions):
            raise PlanError("mirrored", True, "an even number of children at each split", "make it even")

    def after(self, step: int, stepped: torch.Tensor, z: torch.Tensor, o: torch.Tensor) -> torch.Tensor:
        """The latents after `step`, which are `stepped` if it is not stochastic; see `Transition.mean`."""
        latents = stepped
        if step in self.recorded:
            self.latents[step] = z.detach().clone()
        if (transition := self.transitions.get(step)) is not None:
            self.noise[step] = self._draw(step, z.shape)
            mean = transition.mean(stepped, z, o)
            latents = (mean + transition.std * self.noise[step].to(mean)).to(stepped.dtype)
        if not self.differentiable:
            latents = latents.detach()
        self.newest[:] = [latents.detach()]
        return latents

    def _runs(self, step: int) -> int:
        """Different noises in one group."""
        return max(self.branching.leaves // self.branching.same_after(step), 1)

    def _draw(self, step: int, shape: Sequence[int]) -> torch.Tensor:
        run = self.branching.same_after(step)
        drawn = [torch.randn(shape[1:], generator=generator) for generator in self.generators[::run]]
        if self.mirrored:
            drawn = [drawn[i - 1].neg() if i % 2 else one for i, one in enumerate(drawn)]
        return torch.stack(drawn).repeat_interleave(run, 0)
