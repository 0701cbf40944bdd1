"""The recipes, and tiny models of the classes that they are for, in the hub's format, with the published schedulers."""

import re
import shlex
from pathlib import Path
from typing import Any

import diffusers

from tests.backprop.matrix.assemble import assemble
from tests.backprop.matrix.cases import CASES
from tests.backprop.matrix.parts import part

RECIPES = Path(__file__).parents[2] / "pipelines/recipes"

_FLOW = diffusers.FlowMatchEulerDiscreteScheduler
_TRAILING = {"timestep_spacing": "trailing", "beta_schedule": "scaled_linear"}
_UNIPC = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
_ONE_EXPERT = {"transformer_2": None, "boundary_ratio": None}
MODELS: dict[str, tuple[str, Any, dict[str, Any], int]] = {
    "sd15": ("StableDiffusion", diffusers.PNDMScheduler(skip_prk_steps=True, steps_offset=1), {}, 40),
    "sdxl": ("StableDiffusionXL", diffusers.EulerDiscreteScheduler(beta_schedule="scaled_linear"), {}, 40),
    "sd35-medium": (
        "StableDiffusion3",
        _FLOW(shift=3.0),
        {"transformer": lambda: part("SD3Transformer2DModel", num_layers=2)},
        14,
    ),
    "flux1-dev": ("Flux", _FLOW(use_dynamic_shifting=True), {}, 11),
    "flux2-klein-4b": ("Flux2Klein", _FLOW(use_dynamic_shifting=True), {}, 9),
    "qwen-image": ("QwenImage", _FLOW(use_dynamic_shifting=True), {}, 12),
    "sdxl-turbo": ("StableDiffusionXL", diffusers.EulerAncestralDiscreteScheduler(**_TRAILING), {}, 32),
    "sdxl-lightning": ("StableDiffusionXL", diffusers.EulerDiscreteScheduler(**_TRAILING), {}, 32),
    "wan21-1.3b": ("Wan", diffusers.UniPCMultistepScheduler(**_UNIPC), _ONE_EXPERT, 20),
    "wan22-ti2v-5b": ("Wan", diffusers.UniPCMultistepScheduler(**_UNIPC), _ONE_EXPERT, 20),
    "ltx2": ("LTX2", _FLOW(use_dynamic_shifting=True), {}, 48),
    "flux1-schnell": ("Flux", _FLOW(shift=1.0), {}, 11),
}
"""Recipe -> class of the pipeline without its "Pipeline", scheduler, other parts than the usual tiny ones, and how many
layers its LoRA has in that model."""


def save_model(recipe: str, directory: Path) -> Path:
    """The tiny model of a recipe; returns its directory."""
    name, scheduler, parts, _ = MODELS[recipe]
    assemble(f"{name}Pipeline", CASES[name].parts | parts | {"scheduler": scheduler}).save_pretrained(directory)
    return directory


def uses(recipe: str) -> dict[str, list[str]]:
    """The machines and variants that a recipe lists -> what to add; without those that it says cannot be."""
    text = (RECIPES / f"{recipe}.yaml").read_text().partition("# Machines")[2]
    found = re.findall(r"^#   (\S.*?) {2,}(as it is|--set .+)$", text, re.MULTILINE)
    return {kind: [part for part in shlex.split(added) if "=" in part] for kind, added in found}
