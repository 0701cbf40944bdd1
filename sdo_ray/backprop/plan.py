"""A plan: which sampling steps keep their graph, how strongly each learns, and what the reward sees.

Notation
    N        sampling steps, i = 0 .. N-1 in the order the sampler takes them (calls of `scheduler.step`)
    z_i      latents before step i;  z_N  the final latents
    o_i      denoiser output at step i
    s_i      scale      o_i -> sg(o_i) + s_i (o_i - sg(o_i))
    alpha_i  coupling   z_i -> sg(z_i) + alpha_i (z_i - sg(z_i))   where z_i enters the denoiser
    sg(.)    stop-gradient

Steps that are not in a plan run without a graph. Every published estimator is a choice of these numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sdo_ray.backprop.errors import PlanError


@dataclass(frozen=True)
class StepGradient:
    """How one kept step takes part in the backward pass.

    Attributes:
        scale: s_i, factor on the gradient that reaches this step's denoiser output.
        coupling: alpha_i, the share of this step's input gradient that flows back to earlier kept steps; 0 stops it.
    """

    scale: float = 1.0
    coupling: float = 0.0


@dataclass(frozen=True)
class BackpropPlan:
    """The backward pass of one sampling, decided before it starts.

    Attributes:
        name: the estimator the plan came from.
        num_steps: N >= 1, the number of steps the scheduler takes (`solver_weights(scheduler, n).num_steps`; most
            schedulers take `num_inference_steps`, second-order ones nearly twice as many).
        steps: kept step index in 0 .. N-1 -> StepGradient. Empty: nothing is kept, a plain call.

    Raises:
        PlanError: a step outside 0 .. N-1, or N < 1.
    """

    name: str
    num_steps: int
    steps: Mapping[int, StepGradient] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise PlanError("num_steps", self.num_steps, "an integer >= 1", "give the number of sampling steps")
        outside = sorted(i for i in self.steps if not 0 <= i < self.num_steps)
        if outside:
            raise PlanError("steps", outside, f"0 .. {self.num_steps - 1}", "keep only steps that the sampler takes")
        object.__setattr__(self, "steps", dict(sorted(self.steps.items())))

    def describe(self) -> str:
        """One line for logs: the estimator, the kept steps with their numbers, and what the reward sees."""
        kept = ", ".join(f"{i} (scale {s.scale:.4g}, coupling {s.coupling:.4g})" for i, s in self.steps.items())
        return f"{self.name}: {len(self.steps)} of {self.num_steps} steps keep their graph: {kept or 'none'}"

    def __str__(self) -> str:
        return self.describe()
