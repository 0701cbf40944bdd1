"""Cotangents from rewards and from elsewhere add up in one backward pass."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from rewards.terms import Mixing, RewardTerm
from sdo_ray.backprop import BackpropPlan, StepGradient, surrogate
from sdo_ray.backprop.denoisers import denoisers_of
from sdo_ray.rollout.objective import Cotangents, backpropagate, reward_objective
from sdo_ray.rollout.sampling import noise, sample
from sdo_ray.rollout.settings import SamplingSettings
from tests.backprop.tiny import assert_same, double, seeded, stable_diffusion, trained

N, GUIDANCE = 4, 2.0
CALL = SamplingSettings(num_inference_steps=N, guidance_scale=GUIDANCE).pipeline_call(["a", "b"])
PLANS = {
    "one step": {1: StepGradient()},
    "scaled": {1: StepGradient(2.5, 0.0)},
    "two steps": {1: StepGradient(4.0, 0.0), 3: StepGradient(0.5, 0.0)},
}


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return double(stable_diffusion())


def gradient(
    pipeline: Any, steps: dict[int, StepGradient], backward: Any, at: Sequence[int], *, image: float = 1.0
) -> list[torch.Tensor]:
    """What the parameters get from an image gradient of `image` times a ramp and from `cotangent` at the steps `at`."""
    trajectory = sample(pipeline, CALL, noise(3, [6, 7]), BackpropPlan("own", N, steps), backward=backward)
    v = image * torch.linspace(-1, 1, trajectory.samples.numel()).view(trajectory.samples.shape)
    given = [(kept, cotangent(kept.step)) for kept in trajectory.outputs if kept.step in at]
    parameters = {str(i): p for i, p in enumerate(trained(pipeline))}
    found = backpropagate(trajectory, Cotangents(v, given), parameters)
    if not trajectory.calls:
        return list(found.parameters.values())
    total = sum(
        surrogate(denoisers_of(pipeline)[call.denoiser], call.args, call.kwargs, g)
        for call, g in zip(trajectory.calls, found.calls, strict=True)
    )
    return list(torch.autograd.grad(total, trained(pipeline)))


def cotangent(k: int) -> torch.Tensor:
    return torch.randn((2, 4, 8, 8), generator=seeded(k), dtype=torch.float64)


def by_hand(pipeline: Any, k: int) -> list[torch.Tensor]:
    """(do_k/dtheta)^T u by the sampler written out."""
    with torch.no_grad():
        c, c_0 = pipeline.encode_prompt(CALL["prompt"], "cpu", 1, True)
        both = torch.cat([c_0, c])
        z = pipeline.prepare_latents(2, 4, 16, 16, torch.float64, "cpu", noise(3, [6, 7]))
    pipeline.scheduler.set_timesteps(N)
    for i, t in enumerate(pipeline.scheduler.timesteps):
        with torch.set_grad_enabled(i == k):
            without, conditional = pipeline.unet(torch.cat([z] * 2), t, encoder_hidden_states=both).sample.chunk(2)
            o = without + GUIDANCE * (conditional - without)
        if i == k:
            return list(torch.autograd.grad(o, trained(pipeline), cotangent(k)))
        z = pipeline.scheduler.step(o, t, z).prev_sample
    raise AssertionError(k)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_gpu_is_not_asked_once_a_parameter(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    """Each time something of a tensor is looked at, a GPU is waited for."""
    pipe = stable_diffusion().to(dtype)
    trajectory = sample(pipe, CALL, noise(3, [6, 7]), BackpropPlan("own", N, PLANS["one step"]))
    parameters = {str(i): p for i, p in enumerate(trained(pipe))}
    looks, look = list[int](), torch.Tensor.__bool__

    def noted(x: torch.Tensor) -> bool:
        looks.append(1)
        return look(x)

    monkeypatch.setattr(torch.Tensor, "__bool__", noted)
    backpropagate(trajectory, Cotangents(torch.ones_like(trajectory.samples)), parameters)
    assert len(looks) <= 4 < len(parameters)


@pytest.mark.parametrize("backward", ["sampler", "trainer"])
@pytest.mark.parametrize("steps", PLANS.values(), ids=PLANS.keys())
def test_a_cotangent_teaches_what_it_says_on_top_of_the_reward(
    pipeline: Any, steps: dict[int, StepGradient], backward: str
) -> None:
    alone = gradient(pipeline, steps, backward, at=[])
    for at in ([1], list(steps)):
        together = gradient(pipeline, steps, backward, at=at)
        shares = [alone, *(by_hand(pipeline, k) for k in at)]
        assert_same(together, [sum(g) for g in zip(*shares, strict=True)])


def test_without_a_reward_only_the_cotangent_teaches(pipeline: Any) -> None:
    assert_same(gradient(pipeline, PLANS["scaled"], "sampler", [1], image=0.0), by_hand(pipeline, 1))


def test_norms_are_of_all_that_a_step_learns_from(pipeline: Any) -> None:
    trajectory = sample(pipeline, CALL, noise(3, [6, 7]), BackpropPlan("own", N, PLANS["two steps"]))
    nothing = torch.zeros_like(trajectory.samples)
    [first, second] = trajectory.outputs
    given = Cotangents(nothing, [(first, cotangent(1)), (second, 3 * cotangent(3))])
    norms = backpropagate(trajectory, given, {}).norms
    assert norms == pytest.approx({1: cotangent(1).norm().item(), 3: 3 * cotangent(3).norm().item()})


def test_scores_and_gradients_of_one_objective() -> None:
    scores = {"a": torch.tensor([1.0, 2.0, 3.0]), "b": torch.tensor([0.5, 0.5, torch.nan])}
    gradients = {name: torch.randn(3, 3, 4, 4, generator=seeded(i)) for i, name in enumerate("ab")}
    gradients["a"][1, 0, 0, 0] = torch.inf
    terms = [RewardTerm("a", 2.0), RewardTerm("b", -1.0), RewardTerm("c", 0.0)]
    objective = reward_objective(scores, gradients, terms, mixing=Mixing())
    assert objective.valid.tolist() == [True, False, False]
    assert objective.score[0] == 1.5
    assert objective.score[1:].isnan().all()
    v = objective.cotangents.samples
    assert v is not None
    torch.testing.assert_close(v[0], 2 * gradients["a"][0] - gradients["b"][0])
    assert (v[1:] == 0).all()
    assert objective.cotangents.outputs == ()


def test_a_black_box_cannot_be_learned_from() -> None:
    scores = {"a": torch.ones(2), "b": torch.ones(2)}
    gradients = {"a": torch.ones(2, 3, 4, 4), "b": None}
    terms = [RewardTerm("a", 1.0), RewardTerm("b", 1.0)]
    with pytest.raises(ValueError, match=r"'b' has weight 1\.0 but no gradient: it is a black box"):
        reward_objective(scores, gradients, terms, mixing=Mixing())
    assert reward_objective(scores, gradients, [terms[0], RewardTerm("b", 0.0)], mixing=Mixing()).valid.all()
