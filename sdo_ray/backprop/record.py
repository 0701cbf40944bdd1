"""What a backward pass tells about itself."""

from dataclasses import dataclass, field

import torch


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
        """Record the norm at `o`, the output of `step`; several outputs of one step add up in squares."""

        def add(g: torch.Tensor) -> None:
            norm = abs(scale) * torch.linalg.vector_norm(g.detach().double()).item()
            self.norms[step] = (self.norms.get(step, 0.0) ** 2 + norm**2) ** 0.5

        o.register_hook(add)
