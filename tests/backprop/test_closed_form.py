"""A denoiser f(z) = theta z, for which everything can be written down.

With DDIM and epsilon prediction, A_i = abar(t_i), abar of the step after the last is A_N:
    z_{i+1} = p_i z_i + q_i o_i,   p_i = sqrt(A_{i+1} / A_i),   q_i = sqrt(1 - A_{i+1}) - p_i sqrt(1 - A_i)
    a = prod_i p_i,   w_i = q_i prod_{j > i} p_j
    z_k = z_0 prod_{j < k} (p_j + q_j theta),   a_k = prod_{j >= k} p_j

For R = <r, z_N>:
    sdo at k    dR/dtheta = w_k <r, z_k>,   dR/dz_0 = (a + w_k theta prod_{j < k} p_j) r
                dR/dz_k = (a_k + w_k theta) r
    full        dR/dtheta = sum_k q_k prod_{j > k} (p_j + q_j theta) <r, z_k>
Tolerance: float64, 1e-6 relative: DDIM keeps its abar in float32.
"""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config

from sdo_ray.backprop import BackpropPlan, StepGradient, differentiable_sample, make_plan, solver_weights

from .tiny import ddim, stable_diffusion

N = 6
THETA = 0.7


class LinearDenoiser(ModelMixin, ConfigMixin):
    """o = theta z."""

    @register_to_config
    def __init__(self, in_channels: int = 4, sample_size: int = 8, time_cond_proj_dim: int | None = None) -> None:
        super().__init__()
        self.theta = torch.nn.Parameter(torch.tensor(THETA, dtype=torch.float64))

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor, **_: Any) -> tuple[torch.Tensor]:
        return (self.theta * sample,)


@pytest.fixture
def pipe() -> Any:
    pipe = stable_diffusion()
    for name in ("vae", "text_encoder"):
        getattr(pipe, name).to(torch.float64)
    pipe.unet = LinearDenoiser()
    return pipe


@pytest.fixture
def known() -> SimpleNamespace:
    scheduler = ddim()
    scheduler.set_timesteps(N)
    A = [scheduler.alphas_cumprod[t].item() for t in scheduler.timesteps] + [scheduler.final_alpha_cumprod.item()]
    p = [math.sqrt(A[i + 1] / A[i]) for i in range(N)]
    q = [math.sqrt(1 - A[i + 1]) - p[i] * math.sqrt(1 - A[i]) for i in range(N)]
    return SimpleNamespace(p=p, q=q, w=[q[i] * math.prod(p[i + 1 :]) for i in range(N)], a=math.prod(p))


def sampled(pipe: Any, plan: BackpropPlan, z_0: torch.Tensor, **more: Any) -> torch.Tensor:
    call: dict[str, Any] = {"prompt": "a", "guidance_scale": 1.0, "num_inference_steps": N, "output_type": "latent"}
    return differentiable_sample(pipe, plan, latents=z_0, **call, **more)


def near(expected: float) -> Any:
    return pytest.approx(expected, rel=1e-6)


def test_solver_weights(known: SimpleNamespace) -> None:
    weights = solver_weights(ddim(), N)
    assert weights.num_steps == N
    assert weights.a == near(known.a)
    assert weights.w.tolist() == near(known.w)


def test_sdo_gradients(pipe: Any, known: SimpleNamespace) -> None:
    r = torch.randn(1, 4, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    z_0 = torch.randn(1, 4, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    for k in range(N):
        plan = make_plan("sdo", N, draw="fixed", at=[k])
        d_theta, d_z = torch.autograd.grad((r * sampled(pipe, plan, z_0)).sum(), [pipe.unet.theta, z_0])
        z_k = math.prod(known.p[j] + known.q[j] * THETA for j in range(k)) * z_0
        assert d_theta.item() == near(known.w[k] * (r * z_k).sum().item())
        factor = known.a + known.w[k] * THETA * math.prod(known.p[:k])
        torch.testing.assert_close(d_z, factor * r, rtol=1e-6, atol=0)


def test_sdo_gradient_at_the_kept_latents(pipe: Any, known: SimpleNamespace) -> None:
    r, z_0 = (torch.randn(1, 4, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in (1, 2))
    for k in range(1, N):
        shift = torch.zeros_like(z_0, requires_grad=True)
        z_N = sampled(pipe, make_plan("sdo", N, draw="fixed", at=[k]), z_0, shifts={k: shift})
        factor = math.prod(known.p[k:]) + known.w[k] * THETA
        torch.testing.assert_close(torch.autograd.grad((r * z_N).sum(), shift)[0], factor * r, rtol=1e-6, atol=0)


def test_full_gradient(pipe: Any, known: SimpleNamespace) -> None:
    z_0 = torch.randn(1, 4, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    d_theta, d_z = torch.autograd.grad(sampled(pipe, make_plan("full", N), z_0).sum(), [pipe.unet.theta, z_0])
    growth = [p + q * THETA for p, q in zip(known.p, known.q, strict=True)]
    expected = sum(known.q[k] * math.prod(growth[k + 1 :]) * math.prod(growth[:k]) for k in range(N))
    assert d_theta.item() == near(expected * z_0.sum().item())
    torch.testing.assert_close(d_z, torch.full_like(z_0, math.prod(growth)), rtol=1e-6, atol=0)


def test_scale_and_coupling(pipe: Any, known: SimpleNamespace) -> None:
    """Two kept steps i < j: theta learns at i directly and through alpha_j of what j makes of it."""
    i, j, s_i, s_j, alpha = 1, 4, 2.0, 3.0, 0.25
    plan = BackpropPlan("own", N, {i: StepGradient(s_i, 0.0), j: StepGradient(s_j, alpha)})
    z_0 = torch.ones(1, 4, 8, 8, dtype=torch.float64)
    growth = [p + q * THETA for p, q in zip(known.p, known.q, strict=True)]
    z_i, z_j = math.prod(growth[:i]), math.prod(growth[:j])
    # dz_j/do_i along the linear path only
    reach = known.q[i] * math.prod(known.p[i + 1 : j])
    expected = s_i * (known.w[i] + s_j * known.w[j] * alpha * THETA * reach) * z_i + s_j * known.w[j] * z_j
    d_theta = torch.autograd.grad(sampled(pipe, plan, z_0).sum(), pipe.unet.theta)[0]
    assert d_theta.item() == near(expected * z_0.sum().item())


def test_latents_by_finite_differences(pipe: Any) -> None:
    """z_k moves, outputs after k stay: dR/dz_k = (a_k I + w_k do_k/dz_k)^T g, here with k = 0, N = 1 sample each."""
    z_0 = torch.randn(1, 4, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    plan = make_plan("sdo", N, draw="fixed", at=[0])
    d_z = torch.autograd.grad(sampled(pipe, plan, z_0).square().sum(), z_0)[0]

    base = _outputs(pipe, z_0.detach())
    step = torch.randn(z_0.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    h = 1e-4
    up, down = (_moved(pipe, z_0.detach() + sign * h * step, base).square().sum() for sign in (1, -1))
    # R is quadratic in the shift: central differences are exact up to rounding.
    assert ((up - down) / (2 * h)).item() == pytest.approx((d_z * step).sum().item(), rel=1e-6)


def _outputs(pipe: Any, z: torch.Tensor) -> list[torch.Tensor]:
    scheduler, outputs = ddim(), []
    scheduler.set_timesteps(N)
    for t in scheduler.timesteps:
        outputs.append(THETA * z)
        z = scheduler.step(outputs[-1], t, z).prev_sample
    return outputs


def _moved(pipe: Any, z: torch.Tensor, outputs: list[torch.Tensor]) -> torch.Tensor:
    """The final latents from a moved z_0, whose own output follows while the later ones are held."""
    scheduler = ddim()
    scheduler.set_timesteps(N)
    for i, t in enumerate(scheduler.timesteps):
        z = scheduler.step(THETA * z if i == 0 else outputs[i], t, z).prev_sample
    return z
