"""Whether activations are kept is decided by how much they are, and changes nothing but rounding."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from sdo_ray.backprop.saved import saved_activations
from sdo_ray.models.checkpointing import checkpoint_blocks
from sdo_ray.rollout import kept_graph
from sdo_ray.rollout.kept_graph import LearnedSamplingSettings, activations_of_one, choose_kept_graph
from sdo_ray.rollout.reward_settings import FramesSettings, MixSettings, RewardSettings
from sdo_ray.rollout.sampling import noise, plan_of, sample, steps_to_take
from sdo_ray.rollout.settings import KeptGraph, LearningSamplerSettings, PlanSettings
from tests.backprop.matrix.assemble import assemble, image, inputs
from tests.backprop.matrix.cases import CASES
from tests.backprop.matrix.check import adapt
from tests.backprop.tiny import reward, stable_diffusion, trained

SAMPLING = LearnedSamplingSettings(num_inference_steps=4, guidance_scale=2.0)
SDO = PlanSettings(name="sdo", options={"draw": "fixed", "at": [2]})


def test_the_estimate_is_what_is_saved() -> None:
    pipeline: Any = stable_diffusion()
    plan = plan_of(pipeline, SAMPLING, SDO)
    with saved_activations(pipeline.unet, pipeline.vae) as saved:
        sample(pipeline, SAMPLING.pipeline_call(["a", "b"]), noise(0, [0, 1]), plan)
    assert 2 * activations_of_one(pipeline, SAMPLING) == pytest.approx(saved.bytes, rel=0.02)


def test_the_choice_is_by_memory(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """All that is saved where half of the memory is enough, else that of the kept steps, else nothing."""
    pipeline, state = stable_diffusion(), torch.get_rng_state()
    every, steps = (activations_of_one(pipeline, SAMPLING, kept) for kept in ("retain", "steps"))
    assert 4 * steps < 3 * every
    monkeypatch.setattr(kept_graph, "_memory", lambda *_: 2 * 3.0 * every)
    caplog.set_level("INFO")
    for images, expected in ((3, "retain"), (4, "steps"), (3 * every // steps + 1, "recompute")):
        samplers = LearningSamplerSettings(batch_size=images, in_flight=1)
        assert choose_kept_graph(pipeline, SAMPLING, SDO, samplers) == expected
        assert caplog.messages[-1] == f"kept_graph: {expected}"
    assert torch.equal(torch.get_rng_state(), state)
    told = LearnedSamplingSettings(kept_graph="retain")
    assert choose_kept_graph(pipeline, told, SDO, LearningSamplerSettings(batch_size=99)) == "retain"


def test_some_frames_of_a_video_are_decoded_again_rather_than_all_held() -> None:
    pipeline = assemble("AnimateDiffPipeline", CASES["AnimateDiff"].parts)
    adapt(pipeline)
    options = {"height": 32, "width": 32, "num_frames": 6}
    sampling = LearnedSamplingSettings(num_inference_steps=2, options=options)
    terms = [RewardSettings(name="sharpness", frames=FramesSettings(take=2)), RewardSettings(name="layout", weight=0.0)]
    all_frames = RewardSettings(name="layout", frames=FramesSettings())
    for mix, expected in ((terms, "steps"), ([*terms, all_frames], "retain")):
        some = MixSettings(terms=mix).looks_at_some_frames
        chosen = choose_kept_graph(pipeline, sampling, PlanSettings(), LearningSamplerSettings(), some)
        assert chosen == expected
    held = {kept: activations_of_one(pipeline, sampling, kept) for kept in ("retain", "steps")}
    assert held["steps"] < held["retain"]


def test_steps_that_cannot_be_made_again_are_kept_and_the_decoder_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Perturbed attention: the pipeline puts other processors into its denoiser for its call."""
    case = CASES["StableDiffusionPAG"]
    pipeline = assemble("StableDiffusionPAGPipeline", case.parts)
    adapt(pipeline)
    given = inputs(pipeline, case.call)
    options = {name: given[name] for name in ("height", "width", "pag_scale") if name in given}
    sampling = LearnedSamplingSettings(num_inference_steps=2, options=options)
    monkeypatch.setattr(kept_graph, "_memory", lambda *_: 0.0)
    assert choose_kept_graph(pipeline, sampling, PlanSettings(), LearningSamplerSettings()) == "steps"
    plan = plan_of(pipeline, sampling, PlanSettings(name="full"))

    def learned(kept: KeptGraph) -> torch.Tensor:
        call = sampling.pipeline_call(["a", "b"])
        trajectory = sample(pipeline, call, noise(0, [0, 1]), plan, kept_graph=kept)
        gradient = torch.autograd.grad(reward(trajectory.samples), trained(pipeline))
        return torch.cat([g.flatten() for g in gradient])

    whole = learned("retain")
    assert (learned("steps") - whole).norm() < 1e-5 * whole.norm()


def test_checkpointed_blocks_change_nothing_to_the_bit_and_hold_a_fraction() -> None:
    pipeline: Any = stable_diffusion()
    plan = plan_of(pipeline, SAMPLING, SDO)

    def learned() -> tuple[torch.Tensor, list[torch.Tensor], int]:
        with saved_activations(pipeline.unet, pipeline.vae) as saved:
            trajectory = sample(pipeline, SAMPLING.pipeline_call(["a", "b"]), noise(0, [0, 1]), plan)
            size = saved.bytes
        gradient = torch.autograd.grad(reward(trajectory.samples), trained(pipeline))
        return trajectory.samples.detach(), list(gradient), size

    images, gradient, size = learned()
    assert checkpoint_blocks(pipeline.components.values()) == [pipeline.vae, pipeline.unet]
    again, same, less = learned()
    assert torch.equal(again, images)
    assert all(torch.equal(a, b) for a, b in zip(gradient, same, strict=True))
    assert less < 0.5 * size


def test_parts_without_it_are_left_alone(tiny_base: Path) -> None:
    assert checkpoint_blocks([None, torch.nn.Linear(1, 1), copy]) == []


@pytest.mark.parametrize(("strength", "steps"), [(None, 7), (0.25, 8), (0.7, 3), (1.0, 2)])
def test_image_to_image_of_which_two_steps_would_be_none(tmp_path: Path, strength: float | None, steps: int) -> None:
    """SDXL's takes the share 0.3 of its steps, if no other is said."""
    pipeline = assemble("StableDiffusionXLImg2ImgPipeline", CASES["StableDiffusionXLImg2Img"].parts)
    adapt(pipeline)
    image().save(tmp_path / "a.png")
    options = {} if strength is None else {"strength": strength}
    sampling = LearnedSamplingSettings(num_inference_steps=20, options=options)
    sampling = sampling.with_example_of([{"image": str(tmp_path / "a.png")}])
    assert steps_to_take(pipeline, sampling, 2) == steps
    few = sampling.model_copy(update={"num_inference_steps": steps})
    assert plan_of(pipeline, few, PlanSettings(name="full")).num_steps == 2
    assert activations_of_one(pipeline, sampling) > 0
