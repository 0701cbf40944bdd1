"""Groups on unmodified pipelines: shared rows are computed once, and one backward pass is the sum of the children's."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler

from sdo_ray.backprop import (
    BackpropPlan,
    KeptCall,
    PlanError,
    StepGradient,
    TraceError,
    called_scheduler,
    differentiable_sample,
    surrogate,
)
from sdo_ray.backprop.transitions import Branching, StochasticSteps, transitions
from sdo_ray.policy_gradient import PolicyPlan, policy_cotangents, step_advantages
from tests.backprop.tiny import denoiser_of, double, seeded, stable_diffusion, stable_diffusion_3, trained

N, K, GUIDANCE, G = 5, 1, 3.0, 3
PROMPTS = ["a cat", "b"]
ADVANTAGES = torch.tensor([1.5, -0.5, -1.0, 0.2, 0.3, -0.5], dtype=torch.float64)


def noises(seed: int, count: int) -> list[torch.Generator]:
    return [seeded(seed + i) for i in range(count)]


def call(prompts: list[str], **more: Any) -> dict[str, Any]:
    return {"prompt": prompts, "guidance_scale": GUIDANCE, "num_inference_steps": N} | more


def group_call() -> dict[str, Any]:
    """Rows of a group have one prompt and one initial noise."""
    prompts = [prompt for prompt in PROMPTS for _ in range(G)]
    return call(prompts, generator=[seeded(40 + row // G) for row in range(len(prompts))])


def steps(pipe: Any, kernel: str, at: tuple[int, ...] = (K,), **more: Any) -> StochasticSteps:
    made = transitions(called_scheduler(pipe, **call(["a"])), kernel)
    count = G * len(PROMPTS)
    given = {"generators": noises(70, count), "branching": Branching({K: G})} | more
    return StochasticSteps({k: made[k] for k in at}, **given)


def unet_child(pipe: Any, prompt: str, initial: torch.Generator, noise: torch.Tensor) -> torch.Tensor:
    """log pi(z_{K+1} | z_K) of one child by a sampler written out, with diffusers' own stochastic DDIM step."""
    with torch.no_grad():
        c, c_0 = pipe.encode_prompt(prompt, "cpu", 1, True)
        z = pipe.prepare_latents(1, 4, 16, 16, torch.float64, "cpu", initial)
    pipe.scheduler.set_timesteps(N)
    for i, t in enumerate(pipe.scheduler.timesteps[: K + 1]):
        with torch.set_grad_enabled(i == K):
            o_0, o_c = pipe.unet(torch.cat([z, z]), t, encoder_hidden_states=torch.cat([c_0, c])).sample.chunk(2)
            o = o_0 + GUIDANCE * (o_c - o_0)
            eta = float(i == K)
            mu = pipe.scheduler.step(o, t, z, eta=eta, variance_noise=torch.zeros_like(z)).prev_sample
            z = mu
    q = pipe.scheduler._get_variance(t, t - 1000 // N).sqrt()
    return _log_prob(mu, q, noise)


def transformer_child(pipe: Any, prompt: str, initial: torch.Generator, noise: torch.Tensor) -> torch.Tensor:
    """The same for flow matching, with the equation of Flow-GRPO."""
    with torch.no_grad():
        c, c_0, pooled, pooled_0 = pipe.encode_prompt(prompt, prompt, prompt, device="cpu")
        z = pipe.prepare_latents(1, 4, 16, 16, torch.float64, "cpu", initial)
    pipe.scheduler.set_timesteps(N)
    both = {"encoder_hidden_states": torch.cat([c_0, c]), "pooled_projections": torch.cat([pooled_0, pooled])}
    sigmas = pipe.scheduler.sigmas.double()
    for i, t in enumerate(pipe.scheduler.timesteps[: K + 1]):
        with torch.set_grad_enabled(i == K):
            o_0, o_c = pipe.transformer(hidden_states=torch.cat([z, z]), timestep=t.expand(2), **both).sample.chunk(2)
            v = o_0 + GUIDANCE * (o_c - o_0)
            s, d = sigmas[i], sigmas[i + 1] - sigmas[i]
            h = 0.7 * (s / (1 - s)).sqrt() if i == K else torch.zeros(())
            z = mu = z * (1 + h**2 / (2 * s) * d) + v * (1 + h**2 * (1 - s) / (2 * s)) * d
    return _log_prob(mu, h * (-d).sqrt(), noise)


def _log_prob(mu: torch.Tensor, q: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    return torch.distributions.Normal(mu, q).log_prob((mu + q * noise).detach()).mean()


PIPELINES: dict[str, tuple[Callable[[], Any], str, Callable[..., torch.Tensor]]] = {
    "UNet": (stable_diffusion, "ddim", unet_child),
    "transformer": (stable_diffusion_3, "sde", transformer_child),
}


def cotangent(made: StochasticSteps) -> torch.Tensor:
    """a c eps / (q D) for each row."""
    eps, transition = made.noise[K].double(), made.transitions[K]
    return ADVANTAGES[:, None, None, None] * transition.weight * eps / (transition.std * eps[0].numel())


@pytest.mark.parametrize("where", ["here", "elsewhere"])
@pytest.mark.parametrize("name", PIPELINES)
def test_one_backward_pass_is_the_sum_of_the_children_s(name: str, where: str) -> None:
    make, kernel, child = PIPELINES[name]
    pipe = double(make())
    made = steps(pipe, kernel)
    outputs: list[torch.Tensor] = []
    calls: list[KeptCall] = []
    sizes: list[int] = []
    denoiser_of(pipe).register_forward_pre_hook(
        lambda _, args, kwargs: sizes.append(len(args[0] if args else kwargs["hidden_states"])), with_kwargs=True
    )
    differentiable_sample(
        pipe,
        BackpropPlan("own", N, {K: StepGradient()}),
        output_hook=lambda k, s, o: outputs.append(o),
        elsewhere=calls if where == "elsewhere" else None,
        stochastic=made,
        **group_call(),
    )
    # Guidance doubles rows. The first call is checked against the whole batch, once.
    shared, whole = 2 * len(PROMPTS), 2 * len(PROMPTS) * G
    assert sizes == [whole, shared] + [shared] * (K + 1) + [whole] * (N - 1 - K)
    [o] = outputs
    o.backward(cotangent(made))
    for kept in calls:
        surrogate(denoiser_of(pipe), kept.args, kept.kwargs, kept.gradients()).backward()
    got = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained(pipe)]

    expected = [torch.zeros_like(p) for p in trained(pipe)]
    for row, a in enumerate(ADVANTAGES):
        log_prob = child(pipe, PROMPTS[row // G], seeded(40 + row // G), made.noise[K][row : row + 1].double())
        for total, g in zip(expected, torch.autograd.grad(a * log_prob, trained(pipe)), strict=True):
            total += g
    for g, e in zip(got, expected, strict=True):
        assert e.abs().max() > 0
        assert (g - e).abs().max() <= 1e-6 * e.abs().max()


@pytest.mark.parametrize("name", PIPELINES)
def test_a_group_s_images_are_those_of_its_rows_alone(name: str) -> None:
    """Sharing is how they are computed, not what."""
    make, kernel, _ = PIPELINES[name]
    pipe = double(make())
    plan = BackpropPlan("empty", N)
    together = differentiable_sample(pipe, plan, stochastic=steps(pipe, kernel), **group_call())
    for row in (0, 4):
        own = steps(pipe, kernel, generators=noises(70 + row, 1), branching=Branching())
        alone = differentiable_sample(
            pipe, plan, stochastic=own, **call([PROMPTS[row // G]], generator=[seeded(40 + row // G)])
        )
        torch.testing.assert_close(together[row], alone[0], rtol=1e-5, atol=1e-5)
    assert len({tuple(image.flatten().tolist()) for image in together}) == len(ADVANTAGES)


def test_multistep_history_is_each_child_s_own() -> None:
    pipe = stable_diffusion()
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    plan = BackpropPlan("empty", N)
    together = differentiable_sample(double(pipe), plan, stochastic=steps(pipe, "cps"), **group_call())
    for row in (1, 5):
        own = steps(pipe, "cps", generators=noises(70 + row, 1), branching=Branching())
        alone = differentiable_sample(
            pipe, plan, stochastic=own, **call([PROMPTS[row // G]], generator=[seeded(40 + row // G)])
        )
        torch.testing.assert_close(together[row], alone[0], rtol=1e-5, atol=1e-5)


def test_one_prompt_without_guidance_is_one_row() -> None:
    """A denoiser's output is then a tuple of as many tensors as there are rows, which is no list of rows."""
    pipe = double(stable_diffusion_3())
    together = {"generator": [seeded(1) for _ in range(G)], "guidance_scale": 1.0}
    shared = steps(pipe, "cps", generators=noises(70, G))
    images = differentiable_sample(pipe, BackpropPlan("empty", N), stochastic=shared, **call(["a"] * G, **together))
    together["generator"] = [seeded(1) for _ in range(G)]
    each = steps(pipe, "cps", generators=noises(70, G), branching=Branching())
    alone = differentiable_sample(pipe, BackpropPlan("empty", N), stochastic=each, **call(["a"] * G, **together))
    torch.testing.assert_close(images, alone, rtol=1e-5, atol=1e-5)


def test_a_tree_s_rows_part_split_by_split() -> None:
    pipe = double(stable_diffusion_3())
    made = steps(pipe, "dance", at=(0, 1, 2), branching=Branching({0: 3, 2: 2}), generators=noises(70, 6))
    sizes: list[int] = []
    pipe.transformer.register_forward_pre_hook(
        lambda _, args, kwargs: sizes.append(len(kwargs["hidden_states"])), with_kwargs=True
    )
    images = differentiable_sample(
        pipe, BackpropPlan("empty", N), stochastic=made, **call(["a"] * 6, generator=[seeded(1) for _ in range(6)])
    )
    # step 0 is checked whole (12) and shared (2), step 1 too (12, 6)
    assert sizes == [12, 2, 2, 12, 6, 6, 6, 12, 12]
    for step, run in ((0, 2), (1, 2), (2, 1)):
        different = {tuple(row.flatten().tolist()) for row in made.noise[step]}
        assert len(different) == 6 // run
        assert torch.equal(made.noise[step][::run].repeat_interleave(run, 0), made.noise[step])
    assert len({tuple(image.flatten().tolist()) for image in images}) == 6


def test_mirrored_noise() -> None:
    pipe = stable_diffusion_3()
    made = steps(pipe, "ou", branching=Branching({K: 2}), generators=noises(70, 4), mirrored=True)
    generators = [seeded(1 + row // 2) for row in range(4)]
    differentiable_sample(pipe, BackpropPlan("empty", N), stochastic=made, **call(["a"] * 4, generator=generators))
    noise = made.noise[K]
    assert torch.equal(noise[::2], -noise[1::2])
    assert not torch.equal(noise[0], noise[2])


@pytest.mark.parametrize("differentiable", [False, True])
def test_later_images_have_a_gradient_only_where_it_is_wanted(differentiable: bool) -> None:
    pipe = double(stable_diffusion_3())
    made = steps(pipe, "cps", differentiable=differentiable)
    outputs: list[torch.Tensor] = []
    images = differentiable_sample(
        pipe,
        BackpropPlan("own", N, {K: StepGradient()}),
        output_hook=lambda k, s, o: outputs.append(o),
        stochastic=made,
        **group_call(),
    )
    assert images.requires_grad == differentiable
    if differentiable:
        # through the step's mean: c d z_N / d z_{K+1}, which is 1 for flow matching
        latents = differentiable_sample(
            pipe,
            BackpropPlan("own", N, {K: StepGradient()}),
            output_hook=lambda k, s, o: outputs.append(o),
            stochastic=steps(pipe, "cps", differentiable=True),
            **group_call(),
            output_type="latent",
        )
        (g,) = torch.autograd.grad(latents.sum(), outputs[-1])
        torch.testing.assert_close(g, torch.full_like(g, made.transitions[K].weight), rtol=1e-5, atol=1e-6)


def test_rows_that_differ_within_a_group_are_refused() -> None:
    pipe = stable_diffusion_3()
    other_noise = group_call() | {"generator": noises(0, 6)}
    other_prompt = group_call() | {"prompt": ["a", "b", "a", "a", "a", "a"]}
    for wrong in (other_noise, other_prompt):
        with pytest.raises(TraceError, match="rows that differ within a group"):
            differentiable_sample(pipe, BackpropPlan("empty", N), stochastic=steps(pipe, "cps"), **wrong)


def test_rows_that_depend_on_one_another_are_refused() -> None:
    pipe = stable_diffusion_3()
    pipe.transformer.pos_embed.register_forward_hook(lambda _, __, out: out.cumsum(0))
    with pytest.raises(TraceError, match="gives other rows when it is called with fewer"):
        differentiable_sample(pipe, BackpropPlan("empty", N), stochastic=steps(pipe, "cps"), **group_call())


def test_what_does_not_go_together_is_refused() -> None:
    pipe = stable_diffusion()
    with pytest.raises(PlanError, match="a multiple of 3: whole groups"):
        steps(pipe, "cps", generators=noises(0, 4))
    with pytest.raises(PlanError, match="splits"):
        steps(pipe, "cps", at=(2,))
    with pytest.raises(PlanError, match="mirrored"):
        steps(pipe, "cps", mirrored=True)
    coupled = BackpropPlan("own", N, {K: StepGradient(), 2: StepGradient(1.0, 1.0)})
    with pytest.raises(TraceError, match="a plan of single calls"):
        differentiable_sample(pipe, coupled, stochastic=steps(pipe, "cps"), **group_call())
    with pytest.raises(TraceError, match="leave the pipeline's eta out"):
        differentiable_sample(
            pipe, BackpropPlan("empty", N), stochastic=steps(pipe, "cps"), **group_call() | {"eta": 0.5}
        )
    last = transitions(called_scheduler(pipe, **call(["a"])), "cps")[-1]
    beyond = StochasticSteps({N - 1: last}, noises(0, 6))
    with pytest.raises(TraceError, match="leave the last step as it is"):
        differentiable_sample(pipe, BackpropPlan("empty", N), stochastic=beyond, **group_call())
    assert math.isfinite(last.std)


def path_log_probs(
    pipe: Any, initial: torch.Generator, kernel_steps: StochasticSteps, noise: dict[int, torch.Tensor]
) -> dict[int, torch.Tensor]:
    """Step -> log pi(z_{k+1} | z_k) along one path of a tree without guidance, each step's gradient by itself."""
    with torch.no_grad():
        c, _, pooled, _ = pipe.encode_prompt("a", "a", "a", device="cpu", do_classifier_free_guidance=False)
        z = pipe.prepare_latents(1, 4, 16, 16, torch.float64, "cpu", initial)
    pipe.scheduler.set_timesteps(N)
    given = {"encoder_hidden_states": c, "pooled_projections": pooled}
    found = {}
    for i, t in enumerate(pipe.scheduler.timesteps[: max(noise) + 1]):
        v = pipe.transformer(hidden_states=z, timestep=t.expand(1), **given).sample
        after = z + (pipe.scheduler.sigmas[i + 1] - pipe.scheduler.sigmas[i]).double() * v
        if i in noise:
            step = kernel_steps.transitions[i]
            mu = step.mean(after, z, v)
            found[i] = _log_prob(mu, torch.tensor(step.std), noise[i])
            after = mu + step.std * noise[i]
        z = after.detach()
    return found


def test_of_a_tree_one_backward_pass_is_the_sum_of_its_edges_each_by_itself() -> None:
    """Splits at 0 and 2, noise on every branch in between: 3 + 3 + 6 edges, which count once each."""
    pipe = double(stable_diffusion_3())
    branching, at = Branching({0: 3, 2: 2}), (0, 1, 2)
    made = steps(pipe, "dance", at=at, branching=branching, generators=noises(70, 6))
    outputs: dict[int, torch.Tensor] = {}
    generators = [seeded(1) for _ in range(6)]
    differentiable_sample(
        pipe,
        BackpropPlan("own", N, {k: StepGradient() for k in at}),
        output_hook=lambda k, s, o: outputs.update({k: o}),
        stochastic=made,
        **call(["a"] * 6, generator=generators, guidance_scale=1.0),
    )
    plan = PolicyPlan("own", N, at, at, branching, advantage="depth")
    all_steps = transitions(called_scheduler(pipe, **call(["a"])), "dance")
    a = step_advantages(plan, [ADVANTAGES], [1.0])
    u = policy_cotangents(plan, all_steps, made, a)
    torch.autograd.backward([outputs[k] for k in at], [u[k].double() for k in at])
    got = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in trained(pipe)]

    expected = [torch.zeros_like(p) for p in trained(pipe)]
    for row in range(6):
        noise = {k: made.noise[k][row : row + 1].double() for k in at}
        for k, log_prob in path_log_probs(pipe, seeded(1), made, noise).items():
            if row % branching.same_after(k) == 0:  # the first leaf below the edge
                for total, g in zip(expected, torch.autograd.grad(a[k][row] * log_prob, trained(pipe)), strict=True):
                    total += g
    for g, e in zip(got, expected, strict=True):
        assert e.abs().max() > 0
        assert (g - e).abs().max() <= 1e-6 * e.abs().max()
