"""Pipelines that do what others do not: compare classes, decode in tiles alone, have a second text that is empty."""

from typing import Any

import diffusers
import pytest
import torch

from sdo_ray.backprop import TraceError
from sdo_ray.backprop.patches import subclassed

from .matrix.assemble import assemble, inputs
from .matrix.cases import CASES
from .matrix.check import Passed, check


def checked(name: str, parts: dict[str, Any], **call: Any) -> Passed:
    pipe = assemble(f"{name}Pipeline", CASES[name].parts | parts)
    arguments = inputs(pipe, CASES[name].call | call)
    return check(pipe, lambda: arguments | {"generator": torch.Generator().manual_seed(3)})


def test_a_pipeline_that_compares_its_schedulers_class() -> None:
    """Bria asks flow matching's scheduler, by `type(...) !=`, for nothing that it lacks."""
    assert checked("Bria", {"scheduler": diffusers.FlowMatchEulerDiscreteScheduler}).steps == 2


def test_a_class_that_is_stood_in_for_is_equal_to_itself() -> None:
    scheduler = diffusers.DDIMScheduler()
    with subclassed(scheduler, step=lambda self: None):
        kind = type(scheduler)
        assert kind is not diffusers.DDIMScheduler
        assert kind == diffusers.DDIMScheduler
        assert diffusers.DDIMScheduler == kind
        assert kind in (diffusers.DDIMScheduler, diffusers.DDPMScheduler)
        assert {diffusers.DDIMScheduler: 1}[kind] == 1
        assert kind != diffusers.DDPMScheduler
        assert isinstance(scheduler, diffusers.DDIMScheduler)
    assert type(scheduler) is diffusers.DDIMScheduler


def test_an_autoencoder_that_makes_nothing_of_less_than_a_tile() -> None:
    with pytest.raises(TraceError, match=r"images that do not depend on its latents.* sample larger images"):
        checked("Allegro", {}, height=16, width=16, num_frames=8)


@pytest.mark.parametrize("prompt", ["a cat", 'a sign that says "cat"', ["a cat", 'a sign that says "cat"']])
@pytest.mark.parametrize(
    "name",
    [
        "HunyuanImage",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("HunyuanVideo15", "HunyuanVideo15ImageToVideo")),
    ],
)
def test_a_second_text_that_is_empty(name: str, prompt: str | list[str]) -> None:
    """They read what a prompt quotes by an encoder of its own, and mask all of it where nothing is."""
    pipe = assemble(f"{name}Pipeline", CASES[name].parts)
    arguments = inputs(pipe, CASES[name].call | {"prompt": prompt})
    if isinstance(prompt, list) and name != "HunyuanImage":
        pipe.vae.enable_slicing()  # it takes one video alone
    assert check(pipe, lambda: arguments | {"generator": torch.Generator().manual_seed(3)}).steps == 2
