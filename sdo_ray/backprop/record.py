"""What happens at the output of a kept step: a hook for whoever wants to, and the record that is one."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

OutputHook = Callable[[int, float, torch.Tensor], None]
"""Called while the pipeline samples with (k, s_k, o_k) of each kept step, in the order of sampling:

    k       the step, 0 .. N-1
    s_k     the plan's scale there
    o_k     what the scheduler is given, with the graph that the plan keeps; guidance is combined in it already, and
            re-noised copies (a plan with `copies`) have their share in its gradient

Usually once a step; a step whose denoiser makes several things, each with a scheduler of its own, has an output for
each, and one that nothing trained leads to has none.

The plan's scale lies between o_k and the parameters. A gradient g that arrives at o_k teaches as s_k (do_k/dtheta)^T g,
so for a cotangent u to teach as (do_k/dtheta)^T u, it goes in as u / s_k.
"""


@dataclass
class GradientRecord:
    """Filled while `backward` runs; one record belongs to one traced call.

    Attributes:
        norms: kept step k -> ||g_k||, the Euclidean norm over the whole batch of the gradient that step k learns from,
            g_k = s_k dR/do_k, at the output the scheduler was given (guidance already combined). Steps that the
            backward pass does not reach are missing.
    """

    norms: dict[int, float] = field(default_factory=dict)

    def watch(self, step: int, scale: float, o: torch.Tensor) -> None:
        """An `OutputHook`: record the norm at `o`, the output of `step`; several outputs of one add up in squares."""

        def add(g: torch.Tensor) -> None:
            norm = abs(scale) * torch.linalg.vector_norm(g.detach().double()).item()
            self.norms[step] = (self.norms.get(step, 0.0) ** 2 + norm**2) ** 0.5

        o.register_hook(add)
