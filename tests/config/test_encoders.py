"""Text encoders that are to be away, and weights that are to be rounded, for all commands."""

from pathlib import Path
from typing import Any

import pytest
from diffusers import AceStepPipeline, AudioLDM2Pipeline, FluxPipeline, StableDiffusionPipeline

from sdo_ray.config.encoders import check_rounded, check_texts, check_trained_texts
from sdo_ray.models.settings import ModelSettings
from sdo_ray.rollout.settings import SamplerSettings, SamplingSettings
from sdo_ray.rollout.texts import check_called_whole
from sdo_ray.settings import SettingsError

AWAY = SamplerSettings(text_encoders="offload", num_gpus=1.0)
PLAIN = SamplingSettings()
SKIPS = SamplingSettings(options={"clip_skip": 1})


@pytest.mark.parametrize("kind", [AceStepPipeline, AudioLDM2Pipeline])
def test_who_uses_parts_of_encoders_is_refused(kind: Any) -> None:
    with pytest.raises(SettingsError, match=rf"samplers.text_encoders: got 'offload', but a {kind.__name__} uses get_"):
        check_called_whole(kind)


@pytest.mark.parametrize("kind", [StableDiffusionPipeline, FluxPipeline])
def test_who_calls_them_is_not(kind: Any) -> None:
    check_called_whole(kind)


def test_what_cannot_be_away(tiny_base: Path) -> None:
    check_texts(AWAY, PLAIN, str(tiny_base))
    check_texts(SamplerSettings(text_encoders="offload"), SKIPS, None)
    check_texts(SamplerSettings(num_gpus=1.0), SKIPS, None)
    with pytest.raises(SettingsError, match="clip_skip has a pipeline use parts"):
        check_texts(AWAY, SKIPS, None)
    model = ModelSettings(base=str(tiny_base), lora={"text_encoder_targets": ["q_proj"]})
    with pytest.raises(SettingsError, match=r"model.lora.text_encoder_targets trains text encoders"):
        check_trained_texts(model, AWAY, PLAIN, str(tiny_base))


def test_a_rounding_without_its_package(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    check_rounded(ModelSettings(base=str(tiny_base)))
    with pytest.raises(SettingsError, match=r"model.quantize: got 'nf4', which needs bitsandbytes"):
        check_rounded(ModelSettings(base=str(tiny_base), quantize={"unet": "nf4"}))
