"""Real models' quirks after the last step: a safety checker, a watermark, an autoencoder that is turned to float32."""

import copy
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from transformers import CLIPConfig, CLIPImageProcessorPil

from sdo_ray.backprop import differentiable_sample, make_plan
from sdo_ray.models.load import checks_of
from tests.support.sdxl import sdxl

from .matrix.assemble import inputs
from .matrix.cases import CASES
from .tiny import seeded, stable_diffusion

CALL = {"prompt": "a", "num_inference_steps": 2}


def safety_checker() -> StableDiffusionSafetyChecker:
    """As SD 1.x has it, in miniature; with these weights it finds every image to be unsafe."""
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = sizes | {"image_size": 8, "patch_size": 4}
    checker = StableDiffusionSafetyChecker(CLIPConfig(text_config=sizes, vision_config=vision, projection_dim=16))
    checker.concept_embeds_weights.data.fill_(-10.0)
    return checker.eval().requires_grad_(False)


@pytest.fixture
def checked() -> StableDiffusionPipeline:
    pipe = stable_diffusion()
    pipe.register_modules(
        safety_checker=safety_checker(),
        feature_extractor=CLIPImageProcessorPil(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8}),
    )
    return pipe


def test_a_safety_checker_is_passed_by_and_stays(checked: Any, tmp_path: Any) -> None:
    before, config = checked.safety_checker, dict(checked.config)
    plain = checked(**CALL, generator=seeded(), output_type="pt")
    assert plain.nsfw_content_detected == [True]
    assert not plain.images.any()  # it blackens them
    images = differentiable_sample(checked, make_plan("sdo", 2), **CALL, generator=seeded())
    expected = stable_diffusion()(**CALL, generator=seeded(), output_type="pt").images
    assert torch.equal(images, expected)
    images.sum().backward()
    trained = [p for p in checked.unet.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in trained)
    assert (checked.safety_checker, dict(checked.config)) == (before, config)
    checked.unload_lora_weights()
    checked.save_pretrained(tmp_path)
    assert (tmp_path / "safety_checker/model.safetensors").is_file()
    assert checks_of(str(tmp_path)) == ["safety_checker"]
    assert checks_of("zoo://emoji") == []


def test_it_is_back_after_an_exception(checked: Any) -> None:
    before = checked.safety_checker

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        differentiable_sample(checked, make_plan("sdo", 2), **CALL, callback_on_step_end=interrupted)
    assert checked.safety_checker is before


class Watermark:
    """Of SDXL's, whose package is not needed here, the interface: it works on arrays."""

    def apply_watermark(self, images: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(images.numpy() * 0)


def sampled(pipe: Any, output_type: str = "pt") -> torch.Tensor:
    arguments = inputs(pipe, CASES["StableDiffusionXL"].call) | {"output_type": output_type}
    return differentiable_sample(pipe, make_plan("sdo", 2, draw="fixed", at=[1]), generator=seeded(), **arguments)


def gradient(pipe: Any, images: torch.Tensor) -> torch.Tensor:
    trained = [p for p in pipe.unet.parameters() if p.requires_grad]
    got = torch.autograd.grad(images.float().square().sum(), trained, allow_unused=True)
    return torch.cat([g.float().flatten() for g in got if g is not None])


def test_a_watermark_is_passed_by_and_stays() -> None:
    pipe = sdxl(torch.float32)
    expected = sampled(pipe)
    pipe.watermark = Watermark()
    assert torch.equal(sampled(pipe), expected)
    assert isinstance(pipe.watermark, Watermark)


def test_an_autoencoder_that_is_upcast_for_its_decoding_has_a_gradient() -> None:
    """SDXL's in float16: what its graph has saved stays float32 when the pipeline turns it back."""
    pipe = sdxl(torch.float16, force_upcast=True)
    images = sampled(pipe)
    assert images.dtype == torch.float32
    assert pipe.vae.dtype == torch.float16
    assert "to" not in vars(pipe.vae)
    got = gradient(pipe, images)
    # The same with an autoencoder that is float32 for good, called by hand.
    latents, vae = sampled(pipe, "latent"), copy.deepcopy(pipe.vae).float()
    decoded = vae.decode(latents.float() / vae.config.scaling_factor).sample
    expected = pipe.image_processor.postprocess(decoded, output_type="pt")
    torch.testing.assert_close(images, expected)
    torch.testing.assert_close(got, gradient(pipe, expected), rtol=1e-2, atol=1e-2 * got.abs().max().item())
    assert torch.equal(sampled(pipe), images)
