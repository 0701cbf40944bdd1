"""Tiny instances of diffusers' own model classes: the fewest layers and channels that each class accepts."""

import importlib
from typing import Any

import diffusers
import torch
from diffusers.models.transformers.transformer_nucleusmoe_image import SwiGLUExperts

from .autoencoders import AUTOENCODERS
from .convolutional import CONVOLUTIONAL
from .transformer_parts import TRANSFORMERS

TINY = AUTOENCODERS | CONVOLUTIONAL | TRANSFORMERS
AT_HOME = {
    "PaellaVQModel": "deprecated.wuerstchen",
    "WuerstchenPrior": "deprecated.wuerstchen",
    "WuerstchenDiffNeXt": "deprecated.wuerstchen",
    "LTX2TextConnectors": "ltx2",
    "LTX2Vocoder": "ltx2",
    "LTX2LatentUpsamplerModel": "ltx2",
    "AceStepConditionEncoder": "ace_step",
    "AudioLDM2ProjectionModel": "audioldm2",
    "AudioLDM2UNet2DConditionModel": "audioldm2",
    "UNetFlatConditionModel": "deprecated.versatile_diffusion.modeling_text_unet",
    "UniDiffuserModel": "deprecated.unidiffuser",
    "UniDiffuserTextDecoder": "deprecated.unidiffuser",
    "StableAudio3DurationEmbedder": "stable_audio_3.modeling_stable_audio_3",
}
"""Classes that diffusers keeps with their pipeline only: the package."""


def part(name: str, **changes: Any) -> torch.nn.Module:
    """A tiny model of the diffusers class `name`.

    Raises:
        KeyError: no recipe for this class.
    """
    home = importlib.import_module(f"diffusers.pipelines.{AT_HOME[name]}") if name in AT_HOME else diffusers
    made: torch.nn.Module = getattr(home, name)(**TINY[name] | changes)
    for owner in made.modules():
        # Its weights are whatever was in memory until a checkpoint is loaded.
        if isinstance(owner, SwiGLUExperts):
            for weight in owner.parameters():
                torch.nn.init.normal_(weight, std=0.1)
    return made
