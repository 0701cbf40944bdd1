"""Every pipeline of the matrix samples and learns in bfloat16, whatever its parts are given by one another.

Most of these networks have random weights that amplify what is rounded away, so few of their gradients are near to
those of float32; those few are held to it.
"""

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch

from sdo_ray.backprop import differentiable_sample, make_plan
from sdo_ray.backprop.denoisers import denoisers_of
from sdo_ray.models.load import load_pipeline
from sdo_ray.models.precision import own_precision
from sdo_ray.rollout.preparation import set_decoding
from tests.backprop.matrix.assemble import assemble, inputs
from tests.backprop.matrix.cases import CASES
from tests.backprop.matrix.check import adapt, steps_of
from tests.backprop.test_pipelines import WORKING

NOT_TRIED = {
    "on CPUs": "Kandinsky5I2I SanaWM",
    "a call goes through its steps several times": "HeliosPyramid LTX2DFRTemporalRefine LTXI2VLongMultiPrompt "
    "SkyReelsV2DiffusionForcingVideoToVideo",
}
"""Reason -> pipelines, without their "Pipeline"."""
TRIED = [name for name in WORKING if not any(name in names.split() for names in NOT_TRIED.values())]
NOT_READ_BACK = {
    "classes that diffusers no longer names": "AltDiffusion AltDiffusionImg2Img PaintByExample StableCascadeCombined "
    "StableCascadeDecoder VersatileDiffusionTextToImage WuerstchenCombined WuerstchenDecoder WuerstchenPrior",
    "text encoders of other sizes than their configurations say": "PRX PRXPixel StableAudio3 StableAudio3AudioToAudio "
    "StableAudio3Inpaint",
}
"""Reason -> pipelines that diffusers writes and does not read: their parts are cast where they are."""
NEAR = ("CogVideoX", "Flux", "QwenImage", "StableDiffusion")
QUICK = {*NEAR, "LucyEdit", "StableDiffusionXL", "Wan", "ZImageControlNet"}


def both(name: str, directory: Path) -> list[Any]:
    """A pipeline in bfloat16 and in float32, with the same weights and adapters."""
    pipe = assemble(f"{name}Pipeline", CASES[name].parts)
    try:
        pipe.save_pretrained(directory)
        # PAG's layers are an argument that is not saved.
        is_saved = "PAG" not in name and not any(name in names.split() for names in NOT_READ_BACK.values())
    except (AttributeError, RuntimeError, TypeError, ValueError):  # of parts that are not to be saved
        is_saved = False
    if is_saved:
        pipes = [load_pipeline(str(directory), dtype) for dtype in ("bfloat16", "float32")]
    else:
        pipes = [pipe, assemble(f"{name}Pipeline", CASES[name].parts)]
        for part in pipe.components.values():
            if isinstance(part, torch.nn.Module):
                part.bfloat16()
    for made in pipes:
        adapt(made)
        if name == "Allegro":
            set_decoding(made, "tiles")
    half, whole = pipes
    for component, part in half.components.items():
        if isinstance(part, torch.nn.Module):
            whole.components[component].load_state_dict(part.state_dict())
    return pipes


def learned(pipe: Any, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Samples, and the gradient of their adapters at the last step."""
    call = inputs(pipe, CASES[name].call)

    def seeded() -> dict[str, Any]:
        torch.manual_seed(2)
        takes = "generator" in inspect.signature(type(pipe).__call__).parameters
        return call | ({"generator": torch.Generator().manual_seed(3)} if takes else {})

    with own_precision(pipe):
        plan = make_plan("draft", steps_of(pipe, seeded), K=1)
        samples = differentiable_sample(pipe, plan, **seeded())
        samples.float().square().mean().backward()
    parameters = [p for module in denoisers_of(pipe).values() for p in module.parameters() if p.requires_grad]
    return samples, torch.cat([p.grad.float().flatten() for p in parameters if p.grad is not None])


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in TRIED])
def test_what_is_learned_in_half_precision(name: str, tmp_path: Path) -> None:
    half, whole = both(name, tmp_path)
    (samples, gradient), (exact, expected) = learned(half, name), learned(whole, name)
    assert samples.isfinite().all()
    assert gradient.isfinite().all()
    assert gradient.any() == expected.any()
    if name in NEAR:
        assert (samples.float() - exact.float()).abs().mean() < 0.01
        assert torch.cosine_similarity(gradient, expected, dim=0) > 0.99
