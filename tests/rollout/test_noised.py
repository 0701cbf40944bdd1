"""Forward-process methods in a batch: against a loop written by hand on the noised samples."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rewards.terms import Mixing
from sdo_ray.backprop import TraceError
from sdo_ray.backprop.remade import check_guidance
from sdo_ray.models.denoisers import find_denoisers
from sdo_ray.models.parameters import trained_parameters, trained_values
from sdo_ray.policy_gradient import advantages, awm_loss, nft_loss
from sdo_ray.rollout.contribution import learn_from, sample_batch
from sdo_ray.rollout.noised import noised_again
from sdo_ray.rollout.other_policies import weights_in_place
from sdo_ray.rollout.records import Contribution
from sdo_ray.rollout.settings import Backward, PlanSettings
from tests.rollout.test_groups import BLACK, BOTH, SAMPLING, Judge, contribution, largest, pipeline
from tests.rollout.test_other_policies import BATCH, moved, taken_back

__all__ = ["pipeline"]

OPTIONS: dict[str, dict[str, Any]] = {"nft": {"samples": 3, "output_kl": 0.2}, "awm": {"samples": 3, "times": 2}}


def sampled(pipeline: Any, name: str, backward: Backward = "sampler") -> Any:
    plan = PlanSettings(name=name, options=OPTIONS[name])
    return sample_batch(pipeline, BATCH, 0, seed=5, sampling=SAMPLING, plan=plan, backward=backward)


def learned(pipeline: Any, waiting: Any, others: dict[str, Any]) -> tuple[Contribution, torch.Tensor]:
    scores, gradients = Judge()(waiting.trajectory.seen, waiting.prompts, waiting.reward_seeds(5))
    made = learn_from(pipeline, waiting, scores, gradients, terms=BLACK, mixing=Mixing(), others=others)
    return made, scores["light"]


def guided(unet: Any, call: Any, x_t: torch.Tensor) -> torch.Tensor:
    """By hand: the conditions of a kept call, other latents, and guidance of `SAMPLING`."""
    without, told = unet(
        torch.cat([x_t, x_t]),
        call.args[1] if len(call.args) > 1 else call.kwargs["timestep"],
        call.kwargs["encoder_hidden_states"],
        return_dict=False,
    )[0].chunk(2)
    return without + SAMPLING.guidance_scale * (told - without)


@pytest.mark.parametrize("backward", ["sampler", "trainer"])
@pytest.mark.parametrize("name", ["nft", "awm"])
def test_the_gradient_is_that_of_the_loss_at_the_noised_samples(pipeline: Any, name: str, backward: Backward) -> None:
    denoisers = find_denoisers(pipeline)
    unet, own = denoisers["unet"], {n: w.clone() for n, w in trained_values(denoisers).items()}
    newest, base = moved(pipeline, 0.2), moved(pipeline, -0.2)
    waiting = sampled(pipeline, name, backward)
    plan, levels, x0 = waiting.groups.plan, waiting.groups.levels, waiting.trajectory.stochastic.newest[0]
    again, noised = noised_again(waiting.trajectory, levels, waiting.groups.forward_noise(5, BATCH.rows))
    made, scores = learned(pipeline, waiting, {"average": own, "base": base, "newest": newest})
    a = advantages("global-std", [scores], [2.0], torch.arange(6) // 3).float()
    calls = dict(zip(plan.kept, again.calls, strict=True))

    def outputs(weights: dict[str, torch.Tensor]) -> dict[int, torch.Tensor]:
        with torch.no_grad(), weights_in_place(denoisers, weights):
            return {k: guided(unet, call, noised[k]) for k, call in calls.items()}

    average, of_base, total = outputs(own), outputs(base), torch.zeros(())
    with weights_in_place(denoisers, newest):
        parameters = trained_parameters(denoisers)
        for k, call in calls.items():
            o, step = guided(unet, call, noised[k]), levels[k]
            if name == "nft":
                xhat, xhat_avg = ((noised[k] - step.sigma * y) / step.alpha for y in (o, average[k]))
                loss, _ = nft_loss(xhat, xhat_avg, x0, a, 1.0)
            else:
                e = (noised[k] - step.alpha * x0) / step.sigma
                loss = awm_loss(o, e, a, step.sigma / (step.alpha + step.sigma), 0.25)
                loss = loss + (o - average[k]).square().flatten(1).mean(1)
            total = total - (loss + plan.output_kl * (o - of_base[k]).square().flatten(1).mean(1)).sum()
        by_hand = dict(zip(parameters, torch.autograd.grad(total, list(parameters.values())), strict=True))
        if backward == "trainer":
            made = taken_back(pipeline, made)
    assert made.groups["deviation"] > 0
    for key, g in by_hand.items():
        torch.testing.assert_close(made.gradient[key], g, rtol=5e-3, atol=1e-3 * largest(made))


def test_a_reward_s_gradient_is_not_taken_but_its_scores(pipeline: Any) -> None:
    others = {name: trained_values(find_denoisers(pipeline)) for name in ("average", "base")}
    plan = PlanSettings(name="nft", options=OPTIONS["nft"])
    made = contribution(pipeline, Judge(with_gradient=True), plan, terms=BOTH, differentiable=True, others=others)
    assert largest(made) > 0
    assert "gradient_norm" not in made.groups
    assert made.groups["deviation"] == 0


def test_an_average_is_needed(pipeline: Any) -> None:
    with pytest.raises(
        ValueError, match="plan 'nft' with these options learns by the weights of the base and the aver"
    ):
        contribution(pipeline, Judge(), PlanSettings(name="nft", options=OPTIONS["nft"]), others={})


def test_more_than_guidance_is_refused() -> None:
    y = torch.ones(2, 3, requires_grad=True)
    call: Any = SimpleNamespace(output=(y,))
    check_guidance([2 * y[:1] - y[1:]], [call])
    with pytest.raises(TraceError, match="does more than guidance"):
        check_guidance([2 * y[:1] - y[1:] + 1.0], [call])
