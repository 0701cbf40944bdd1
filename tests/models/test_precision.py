"""Each component computes in a type of its own, and samplers' copies of what is trained are of the type around them."""

from pathlib import Path
from typing import Any

import pytest
import torch

from sdo_ray.backprop import differentiable_sample, make_plan
from sdo_ray.models.load import load_pipeline
from sdo_ray.models.parameters import set_parameters, trained_parameters
from sdo_ray.models.policy import attach_working_copy, load_model
from sdo_ray.models.precision import own_precision
from sdo_ray.models.settings import ModelSettings
from sdo_ray.rollout.sampling import draw
from sdo_ray.settings import SettingsError
from tests.backprop.matrix.assemble import inputs
from tests.backprop.matrix.cases import CASES
from tests.backprop.tiny import reward, seeded
from tests.support.policies import moved_policy
from tests.support.samples import saved

CALL = {"prompt": ["a", "b"], "num_inference_steps": 3, "guidance_scale": 2.0}


def learned(model: ModelSettings, **call: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Images, and the gradient of what is trained."""
    pipeline = load_model(model)
    trained = attach_working_copy(pipeline.components, model)
    set_parameters(trained, moved_policy(model, 0.1))
    parameters = trained_parameters(trained)
    with own_precision(pipeline):
        images = differentiable_sample(pipeline, make_plan("sdo", 3, draw="fixed", at=[1]), generator=seeded(), **call)
        assert not torch.is_autocast_enabled("cpu")
    reward(images.float()).backward()
    assert all(p.grad is None or p.grad.dtype == p.dtype for p in parameters.values())
    return images, torch.cat([p.grad.flatten().float() for p in parameters.values() if p.grad is not None])


def test_a_decoder_that_overflows_in_float16_is_float32(sdxl_base: Path) -> None:
    pipeline = load_pipeline(str(sdxl_base), "float16")
    assert (pipeline.vae.dtype, pipeline.unet.dtype) == (torch.float32, torch.float16)
    assert load_pipeline(str(sdxl_base), "bfloat16").vae.dtype == torch.bfloat16
    call = inputs(pipeline, CASES["StableDiffusionXL"].call)
    with own_precision(pipeline), torch.no_grad():
        images = pipeline(generator=seeded(), **call).images
        latents = pipeline(generator=seeded(), **call | {"output_type": "latent"}).images
        decoded = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
    assert images.dtype == torch.float32
    assert torch.equal(images, pipeline.image_processor.postprocess(decoded, output_type="pt"))
    assert pipeline.vae.dtype == torch.float32
    assert "decode" not in vars(pipeline.vae)


def test_what_is_drawn_through_it_is_neither_black_nor_broken(sdxl_base: Path) -> None:
    """As comparisons, previews and `sdo sample` draw, of weights that really overflow."""
    pipeline = load_pipeline(str(sdxl_base), "float16")
    with torch.no_grad():
        pipeline.vae.decoder.conv_in.weight.mul_(1e7)
    call = inputs(pipeline, CASES["StableDiffusionXL"].call)
    del call["output_type"]
    images, latents = (draw(pipeline, call, [seeded()], output_type=kind) for kind in ("pt", "latent"))
    assert images.isfinite().all()
    assert images.std() > 0
    with torch.no_grad():
        assert not pipeline.vae.half().decode(latents.half()).sample.isfinite().all()


@pytest.mark.parametrize("train", ["lora", "diffit", "full"])
def test_working_copies_are_of_the_type_around_them_and_learn_the_same(tiny_base: Path, train: str) -> None:
    half, whole = (
        ModelSettings.model_validate({"base": str(tiny_base), "dtype": dtype, "train": train})
        for dtype in ("bfloat16", "float32")
    )
    pipeline = load_model(half)
    types = {p.dtype for module in attach_working_copy(pipeline.components, half).values() for p in module.parameters()}
    assert types == {torch.bfloat16}
    (images, gradient), (exact, expected) = (learned(model, **CALL) for model in (half, whole))
    assert (images.float() - exact).abs().mean() < 0.02
    assert torch.cosine_similarity(gradient, expected, dim=0) > 0.99


@pytest.mark.parametrize(("train", "types"), [("lora", {torch.bfloat16}), ("full", {torch.bfloat16, torch.float32})])
def test_a_model_that_keeps_layers_in_float32_computes_in_half_precision(
    tmp_path: Path, train: str, types: set[torch.dtype]
) -> None:
    """Wan: its tables, which are the first of its weights, its embedding of time and its norms."""
    base = str(saved("Wan", tmp_path))
    half, whole = (ModelSettings(base=base, dtype=dtype, train=train) for dtype in ("bfloat16", "float32"))
    pipeline = load_model(half)
    assert next(pipeline.transformer.parameters()).dtype == torch.float32
    assert {p.dtype for p in trained_parameters(attach_working_copy(pipeline.components, half)).values()} == types
    call = inputs(pipeline, CASES["Wan"].call) | {"num_inference_steps": 3}
    (videos, gradient), (exact, expected) = (learned(model, **call) for model in (half, whole))
    assert (videos.float() - exact).abs().mean() < 0.02
    assert torch.cosine_similarity(gradient, expected, dim=0) > 0.99


@pytest.mark.parametrize("dtypes", [{"vae": "float32"}, {"text_encoder": "float32"}])
def test_a_component_may_have_another_type(tiny_base: Path, dtypes: dict[str, str]) -> None:
    model = ModelSettings.model_validate({"base": str(tiny_base), "dtype": "bfloat16", "dtypes": dtypes})
    pipeline = load_model(model)
    [(name, _)] = dtypes.items()
    assert {pipeline.components[name].dtype, pipeline.unet.dtype} == {torch.float32, torch.bfloat16}
    _, gradient = learned(model, **CALL)
    _, expected = learned(ModelSettings(base=str(tiny_base)), **CALL)
    assert torch.cosine_similarity(gradient, expected, dim=0) > 0.99


def test_a_component_that_there_is_not_is_refused(tiny_base: Path) -> None:
    model = ModelSettings.model_validate({"base": str(tiny_base), "dtypes": {"transformer": "float32"}})
    with pytest.raises(SettingsError, match=r"dtypes: .*transformer.* text_encoder, unet, vae"):
        load_model(model)
