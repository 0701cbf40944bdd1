"""A half-precision model decodes in float32 where its pipeline means to, though the adapter multiplies in half."""

import copy

import torch

from sdo_ray.backprop import differentiable_sample, make_plan
from sdo_ray.models.precision import autocast
from tests.backprop.matrix.assemble import inputs
from tests.backprop.matrix.cases import CASES
from tests.backprop.test_bypass import sdxl
from tests.backprop.tiny import seeded

CALL = CASES["StableDiffusionXL"].call


def test_an_upcast_autoencoder_decodes_in_float32() -> None:
    pipe = sdxl(torch.float16, force_upcast=True)
    for name, parameter in pipe.unet.named_parameters():
        if "lora" in name:
            parameter.data = parameter.data.float()

    def sampled(output_type: str) -> torch.Tensor:
        arguments = inputs(pipe, CALL) | {"output_type": output_type}
        with autocast(pipe):
            return differentiable_sample(pipe, make_plan("sdo", 2), generator=seeded(), **arguments)

    images, latents, vae = sampled("pt"), sampled("latent"), copy.deepcopy(pipe.vae).float()
    decoded = vae.decode(latents.float() / vae.config.scaling_factor).sample
    torch.testing.assert_close(images, pipe.image_processor.postprocess(decoded, output_type="pt"))
    with autocast(pipe), torch.no_grad():
        plain = pipe(generator=seeded(), **inputs(pipe, CALL)).images
    assert torch.equal(plain, images)
    images.float().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in pipe.unet.parameters() if p.requires_grad)
    assert "_compiled_call_impl" not in vars(pipe.vae)


def test_a_float32_model_is_left_alone() -> None:
    pipe = sdxl(torch.float32)
    with autocast(pipe):
        assert not torch.is_autocast_enabled("cpu")
