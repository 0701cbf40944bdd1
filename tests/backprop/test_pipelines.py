"""Any pipeline: no code per model. The table of all that are checked is docs/pipelines.md."""

import pytest
import torch

from sdo_ray.backprop import BackpropPlan, TraceError, differentiable_sample, make_plan

from .matrix.__main__ import others
from .matrix.assemble import assemble, inputs
from .matrix.cases import CASES, NOT_RUN, REFUSED, STAYS
from .matrix.check import adapt
from .matrix.run import run

# One of each kind: guidance in one batch and in two calls, masks, ControlNet, learned variance in pixels, two experts,
# pipelines within pipelines, a denoiser of another name, video, audio, both at once, copied schedulers, one with an end
# point, a cache of keys and values, a decoder method under `no_grad`, tensors written over after they were saved.
QUICK = (
    "AnimateDiff",
    "CogVideoX",
    "Flux",
    "Flux2KleinKV",
    "IF",
    "KandinskyV22Combined",
    "LTX2",
    "LTXI2VLongMultiPrompt",
    "LatentConsistencyModelImg2Img",
    "MarigoldNormals",
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
    assert len(WORKING) >= 248
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
        images = differentiable_sample(pipe, plan, generator=torch.Generator().manual_seed(3), **call)
        return [g for g in torch.autograd.grad(images.sum(), parameters, allow_unused=True) if g is not None]

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


def test_reasons_are_of_classes_without_a_case() -> None:
    named = [name for names in NOT_RUN.values() for name in names.split()]
    assert len(named) == len(set(named))
    assert set(named) <= set(others())


def test_a_cache_is_of_one_call() -> None:
    """Its keys and values carry a nested gradient, and are gone when a call is made again."""
    name = "Flux2KleinKV"
    pipe = assemble(f"{name}Pipeline", CASES[name].parts)
    adapt(pipe)
    call = inputs(pipe, CASES[name].call)
    for plan, kept in ((make_plan("sdo", 2, at=[1], draw="fixed"), []), (make_plan("full", 2, checkpoint=True), None)):
        with pytest.raises(TraceError, match="Flux2KVCache"):
            differentiable_sample(pipe, plan, elsewhere=kept, **call)


def test_a_method_under_no_grad_lets_the_gradient_through() -> None:
    """Here the prompts' encoding: a text encoder that is trained gets its gradient."""
    pipe = assemble("IFPipeline", CASES["IF"].parts)
    adapt(pipe)
    weight = pipe.text_encoder.shared.weight.requires_grad_()
    images = differentiable_sample(pipe, make_plan("sdo", 2), **inputs(pipe, CASES["IF"].call))
    (gradient,) = torch.autograd.grad(images.sum(), weight)
    assert gradient.abs().max() > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(REFUSED))
def test_refused(name: str) -> None:
    with pytest.raises(Exception, match=REFUSED[name].error):
        run(name)
