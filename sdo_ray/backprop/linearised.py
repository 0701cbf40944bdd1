"""What a pipeline made of its denoiser's outputs, with the gradient of others that stand for them."""

from collections.abc import Sequence
from typing import Any

import torch


def with_gradient_of(o: torch.Tensor, r: Sequence[torch.Tensor], u: Sequence[torch.Tensor]) -> torch.Tensor:
    """The value of `o`, whose gradient g also goes to u as J^T g, J the Jacobian of `o` with respect to `r`.

    It is what `o` would be if it had been made of u, to first order: exact for guidance, which is linear, whatever kind
    it is of. What else `o` depends on, such as the guidance scale, has its gradient as before.

    Args:
        o: made of `r`.
        r: leaves in the graph of `o`.
        u: one for each, of its shape.
    """
    linearised: torch.Tensor = _Linearised.apply(o, len(r), *r, *u)
    return linearised


class _Linearised(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, o: torch.Tensor, count: int, *tensors: torch.Tensor) -> torch.Tensor:
        ctx.o, ctx.r = o, tensors[:count]
        return o.clone()

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> Any:
        v = torch.autograd.grad(ctx.o, ctx.r, g, retain_graph=True, allow_unused=True)
        return g, None, *(None for _ in ctx.r), *v
