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
from typing import Literal, get_args

from sdo_ray.backprop.errors import PlanError

Guidance = Literal["both", "prompt"]
"""Which branches of classifier-free guidance learn at a kept step."""


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
        reward_at: None: the reward sees the sample. j: it sees the posterior mean at step j (see
            `sdo_ray.backprop.posterior`), decoded as the pipeline decodes; later steps are skipped.
        copies: n >= 0. With n > 0 the last step, which must be kept, learns from the mean over its own latents and n
            re-noised copies of them (see `sdo_ray.backprop.renoise`).
        seed: of the copies' noise.
        checkpoint: whether a kept denoiser call keeps its inputs alone and is made again during the backward pass
            (Chen et al. 2016, arXiv 1604.06174): the same gradient, for one more forward pass of each kept step.
        guidance: "both": what the prompt is guided away from learns as well. "prompt": the prompt's branch alone has a
            graph (see `sdo_ray.backprop.guidance`), the other is held constant.

    Raises:
        PlanError: N < 1, a step outside 0 .. N-1 or after `reward_at`, copies without the last step, another guidance,
            or the prompt's alone with copies.
    """

    name: str
    num_steps: int
    steps: Mapping[int, StepGradient] = field(default_factory=dict)
    reward_at: int | None = None
    copies: int = 0
    seed: int = 0
    checkpoint: bool = False
    guidance: Guidance = "both"

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise PlanError("num_steps", self.num_steps, "an integer >= 1", "give the number of sampling steps")
        last = self.num_steps - 1
        reach = last if self.reward_at is None else self.reward_at
        if not 0 <= reach <= last:
            raise PlanError("reward_at", reach, f"None or 0 .. {last}", "let the reward see a step that is taken")
        outside = sorted(i for i in self.steps if not 0 <= i <= reach)
        if outside:
            raise PlanError("steps", outside, f"0 .. {reach}", "keep only steps that the reward depends on")
        if self.copies and (self.reward_at is not None or last not in self.steps):
            legal = f"0 unless step {last} is kept and the reward sees the sample"
            raise PlanError("copies", self.copies, legal, "keep the last step")
        if self.guidance not in get_args(Guidance):
            raise PlanError("guidance", self.guidance, "'both' or 'prompt'", "name the branches that learn")
        if self.guidance == "prompt" and self.copies:
            raise PlanError("guidance", "prompt", "'both' with re-noised copies", "choose one of the two")
        object.__setattr__(self, "steps", dict(sorted(self.steps.items())))

    @property
    def renoised_at(self) -> int | None:
        """The step with re-noised copies: the last, or None."""
        return self.num_steps - 1 if self.copies else None

    @property
    def is_of_single_calls(self) -> bool:
        """Whether each kept step's backward pass is of that step alone: no coupling, no copies."""
        return not self.copies and not any(kept.coupling for kept in self.steps.values())

    def describe(self) -> str:
        """One line for logs: the estimator, the kept steps with their numbers, and what the reward sees."""
        kept = ", ".join(f"{i} (scale {s.scale:.4g}, coupling {s.coupling:.4g})" for i, s in self.steps.items())
        copies = f", the last with {self.copies} re-noised copies" if self.copies else ""
        copies += ", activations made again" if self.checkpoint else ""
        copies += ", the prompt's branch alone" if self.guidance == "prompt" else ""
        sees = "the sample" if self.reward_at is None else f"the posterior mean at step {self.reward_at}"
        kept = f"{len(self.steps)} of {self.num_steps} steps keep their graph: {kept or 'none'}{copies}"
        return f"{self.name}: {kept}; the reward sees {sees}"

    def __str__(self) -> str:
        return self.describe()
