"""Any pipeline: no code per model. The table of all that are checked is docs/pipelines.md."""

import pytest
import torch

from sdo_ray.backprop import BackpropPlan, TraceError, differentiable_sample, make_plan

from .matrix.assemble import assemble, inputs
from .matrix.cases import CASES, REFUSED, STAYS
from .matrix.check import adapt
from .matrix.run import run

# One of each kind: guidance in one batch and in two calls, masks, ControlNet, learned variance in pixels, two experts,
# pipelines within pipelines, a denoiser of another name, video, audio, copied schedulers, one with an end point.
QUICK = (
    "AnimateDiff",
    "CogVideoX",
    "Flux",
    "IF",
    "KandinskyV22Combined",
    "LatentConsistencyModelImg2Img",
    "SanaSprint",
    "SkyReelsV2DiffusionForcing",
    "StableAudio",
    "StableCascadeDecoder",
    "StableDiffusionControlNetInpaint",
    "StableDiffusionXLPAG",
    "WanImageToVideo",
)
WORKING = sorted(set(CASES) - set(REFUSED))


def test_there_are_many() -> None:
    assert len(WORKING) >= 150
    assert set(QUICK) <= set(WORKING)
    assert set(REFUSED) <= set(CASES)


@pytest.mark.parametrize("name", QUICK)
def test_some(name: str) -> None:
    assert run(name).travels == (name not in STAYS)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(WORKING) - set(QUICK)))
def test_all_others(name: str) -> None:
    assert run(name).travels == (name not in STAYS)


def test_a_denoiser_that_takes_its_lists_apart() -> None:
    name = "StableDiffusionXLAdapter"
    pipe = assemble(f"{name}Pipeline", CASES[name].parts)
    parameters = adapt(pipe)
    call = inputs(pipe, CASES[name].call)

    def gradients(plan: BackpropPlan) -> list[torch.Tensor]:
        pictures = differentiable_sample(pipe, plan, generator=torch.Generator().manual_seed(3), **call)
        return [g for g in torch.autograd.grad(pictures.sum(), parameters, allow_unused=True) if g is not None]

    whole, checkpointed = (gradients(make_plan("full", 2, checkpoint=checkpoint)) for checkpoint in (False, True))
    for g, same in zip(whole, checkpointed, strict=True):
        torch.testing.assert_close(g, same)
    assert any(g.abs().max() > 0 for g in gradients(make_plan("draft-lv", 2)))


def test_attention_processors_of_one_call_are_taken_out_again() -> None:
    name = "StableDiffusionPAG"
    pipe = assemble(f"{name}Pipeline", CASES[name].parts)
    adapt(pipe)
    call = inputs(pipe, CASES[name].call)
    before = dict(pipe.unet.attn_processors)
    for plan, kept in (
        (make_plan("sdo", 1), None),
        (make_plan("sdo", 2), []),
        (make_plan("full", 2, checkpoint=True), None),
    ):
        with pytest.raises(TraceError):
            differentiable_sample(pipe, plan, elsewhere=kept, **call)
        assert pipe.unet.attn_processors == before


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(REFUSED))
def test_refused(name: str) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011  Whatever the pipeline trips over; the table says what.
        run(name)
