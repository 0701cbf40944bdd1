"""What a trial says of a way to hold: nothing is lost where all is computed, and each measure is what it says."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from rewards.terms import Mixing, RewardTerm
from sdo_ray.backprop import run_by
from sdo_ray.cheap_steps.choose import choose_runner
from sdo_ray.cheap_steps.settings import CacheSettings
from sdo_ray.fidelity.gradients import Evaluated
from sdo_ray.rollout.records import PromptBatch
from sdo_ray.rollout.settings import PlanSettings, SamplingSettings
from sdo_ray.seeds import generator
from sdo_ray.step_search import trials as module
from sdo_ray.step_search.settings import Compared
from sdo_ray.step_search.trials import Trial, Trials
from tests.backprop.tiny import stable_diffusion

N = 6
BATCHES = (PromptBatch(0, (0, 1), ("a cat", "a dog")), PromptBatch(1, (2, 3), ("a hat", "a cup")))
SAMPLING = SamplingSettings(num_inference_steps=N, guidance_scale=3.0)


def redness(images: torch.Tensor, _prompts: Sequence[str], _seeds: Sequence[int]) -> Any:
    with torch.enable_grad():
        seen = images.detach().requires_grad_()
        score = (2 * seen[:, 0] - seen[:, 1]).mean(dim=(1, 2))
        return {"red": score.detach()}, {"red": torch.autograd.grad(score.sum(), seen)[0]}


def trials_of(pipe: Any) -> Trials:
    evaluated = Evaluated(7, SAMPLING, redness, [RewardTerm("red", 1.0)], Mixing())
    trained = {name: p for name, p in pipe.unet.named_parameters() if p.requires_grad}
    return Trials(pipe, trained, {}, evaluated, PlanSettings(name="sdo", options={"K": 1}))


@pytest.mark.parametrize("compare", ["latents", "rewards", "gradient"])
def test_all_steps_computed_are_exact_and_fewer_are_not(compare: Compared) -> None:
    trials = trials_of(stable_diffusion())
    whole = CacheSettings(name="taylor", steps=[*range(N)], of=N)
    assert trials.try_out(Trial(whole, BATCHES, N, compare)).error == pytest.approx(0, abs=1e-6)
    few = trials.try_out(Trial(CacheSettings(name="taylor", steps=[0, 3], of=N), BATCHES, N, compare), timed=True)
    assert few.error > 1e-4
    assert few.cost is not None


def test_the_error_of_latents_is_their_relative_distance() -> None:
    pipe = stable_diffusion()
    cache = CacheSettings(name="taylor", steps=[0, 2], of=N)
    errors = []
    for batch in BATCHES:

        def latents(batch: PromptBatch = batch) -> torch.Tensor:
            noise = [generator(7, "noise", row) for row in batch.rows]
            return pipe(**SAMPLING.pipeline_call(batch.prompts), generator=noise, output_type="latent").images

        exact = latents()
        with run_by(choose_runner(pipe, cache, None, N), pipe, N):
            errors.append(float((latents() - exact).norm() / exact.norm()))
    tried = trials_of(pipe).try_out(Trial(cache, BATCHES, N, "latents"))
    assert tried.error == pytest.approx(sum(errors) / 2, rel=1e-5)
    assert tried.cost is None


def test_another_number_of_steps_has_exact_steps_of_its_own() -> None:
    trials = trials_of(stable_diffusion())
    whole = CacheSettings(name="taylor", steps=[*range(N)], of=N)
    assert trials.try_out(Trial(whole, BATCHES, N - 2, "latents")).error == pytest.approx(0, abs=1e-6)
    assert trials.try_out(Trial(whole, BATCHES, 2 * N, "latents")).error > 1e-4


def test_what_came_to_nothing_is_far_off() -> None:
    x = torch.ones(4)
    for compare in ("latents", "rewards", "gradient"):
        assert module._error(compare, x * float("nan"), x) == module.LARGEST
