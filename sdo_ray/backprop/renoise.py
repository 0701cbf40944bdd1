"""Several noisings of one sample at its last step, for a gradient of lower variance.

Notation
    z, o    latents and (guided) output of the step;  xhat  their posterior mean
    z^m     alpha sg(xhat) + sigma eps^m, m = 1 .. n: the same clean latents under other noise
    r       what the denoiser returned;  G  what the pipeline made of it: o = G(r), guidance for example
    r^m     the denoiser's output at z^m

The result has the value of o and the gradient of the mean over o and G(r^m), with G replaced by its Jacobian at r, see
`sdo_ray.backprop.linearised`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sdo_ray.backprop.errors import TraceError
from sdo_ray.backprop.linearised import with_gradient_of
from sdo_ray.backprop.posterior import noise_level, posterior_mean
from sdo_ray.backprop.tensors import floating, map_floating


@dataclass(frozen=True)
class DenoiserCall:
    """One call of the denoiser as it was made, with what came back (its gradient starts here)."""

    forward: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any


def with_renoised(
    calls: Sequence[DenoiserCall],
    scheduler: Any,
    o: torch.Tensor,
    t: Any,
    z: torch.Tensor,
    n: int,
    generator: torch.Generator,
) -> torch.Tensor:
    """`o` with the mean gradient over itself and n re-noised copies.

    Args:
        calls: the denoiser calls of this step; their outputs are leaves that require a gradient, `o` depends on them.
        scheduler: before its step.
        o: model output, [B, C, ...].
        t: timestep.
        z: latents, [B, C, ...].
        n: copies, >= 1.
        generator: a CPU generator for eps.

    Raises:
        TraceError: the denoiser was not called with the latents as they are (scaled by the scheduler and repeated).
    """
    alpha, sigma = (x.to(device=z.device, dtype=z.dtype) for x in noise_level(scheduler, t))
    z, xhat = z.detach(), posterior_mean(scheduler, o.detach(), t, z.detach())
    scaled = _scaled(scheduler, t)
    r = [x for call in calls for x in floating(call.output)]
    # As at every kept step: casts that autocast made without a graph would take the gradient from the weights.
    torch.clear_autocast_cache()
    with torch.enable_grad():
        total = [torch.zeros_like(x) for x in r]
        for m in range(n + 1):
            eps = torch.randn(z.shape, generator=generator, dtype=torch.float32).to(z) if m else None
            z_m = z if eps is None else alpha * xhat + sigma * eps
            r_m = [x for call in calls for x in floating(_again(call, scaled(z), scaled(z_m)))]
            total = [a + b for a, b in zip(total, r_m, strict=True)]
        return with_gradient_of(o, r, [x / (n + 1) for x in total])


def _scaled(scheduler: Any, t: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda z: scheduler.scale_model_input(z, t) if hasattr(scheduler, "scale_model_input") else z


def _again(call: DenoiserCall, z: torch.Tensor, z_m: torch.Tensor) -> Any:
    """The call once more with z_m wherever it had z."""
    found = 0

    def replace(x: torch.Tensor) -> torch.Tensor:
        nonlocal found
        if x.shape[1:] != z.shape[1:] or x.dim() == 0 or x.shape[0] % z.shape[0]:
            return x
        repeats = (x.shape[0] // z.shape[0], *(1 for _ in z.shape[1:]))
        if not torch.equal(x.detach(), z.repeat(repeats).to(x.dtype)):
            return x
        found += 1
        return z_m.repeat(repeats).to(x.dtype)

    args, kwargs = map_floating(replace, (call.args, call.kwargs))
    if not found:
        raise TraceError(
            "pipeline",
            "a denoiser whose input is not the scheduler's latents",
            "latents passed on as they are, scaled by the scheduler, repeated for guidance",
            "use estimator draft with K = 1, which needs no copies",
        )
    return call.forward(*args, **kwargs)
