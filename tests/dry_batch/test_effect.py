"""What changes nothing, or something else once it is exported, is refused before a cluster."""

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from sdo_ray.dry_batch import effect
from sdo_ray.dry_batch.effect import check_effect
from sdo_ray.models.adapter_file import FILE
from sdo_ray.models.export import ADAPTER, export_model
from sdo_ray.models.parameters import trained_values
from sdo_ray.models.policy import attach_working_copy, initial_policy, load_model
from sdo_ray.models.settings import ModelSettings
from sdo_ray.rollout.sampling import draw, noise
from sdo_ray.rollout.settings import SamplingSettings
from sdo_ray.settings import SettingsError

CALL = SamplingSettings(num_inference_steps=2).pipeline_call(["a"])


def drawn(pipeline: Any) -> torch.Tensor:
    return draw(pipeline, CALL, noise(0, [0]))


def check(model: ModelSettings, look: Any = drawn) -> None:
    pipeline, initial = load_model(model), initial_policy(model, 0)
    trained = attach_working_copy(pipeline.components, model)
    check_effect(pipeline, trained, model, initial, look)
    assert all(torch.equal(w, initial[name].to(w)) for name, w in trained_values(trained).items())


@pytest.mark.parametrize("kind", ["lora", "diffit", "full"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_each_kind_draws_what_it_hands_out(tiny_base: Path, kind: str, dtype: str) -> None:
    check(ModelSettings.model_validate({"base": str(tiny_base), "train": kind, "dtype": dtype}))


@pytest.mark.parametrize("lora", [{"dora": True}, {"init": "pissa"}])
def test_each_lora_draws_what_it_hands_out(tiny_base: Path, lora: dict[str, Any]) -> None:
    check(ModelSettings.model_validate({"base": str(tiny_base), "lora": lora}))


def test_what_changes_nothing_is_refused(tiny_base: Path) -> None:
    model = ModelSettings(base=str(tiny_base))
    with pytest.raises(SettingsError, match=r"^model\.lora: what is trained changes nothing in the image"):
        check(model, lambda pipeline: torch.zeros(1, 3, 8, 8))


def test_another_image_of_what_is_exported_is_refused(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def doubled(directory: Path, model: ModelSettings, weights: Any) -> None:
        """A LoRA's strength that the file does not keep."""
        export_model(directory, model, weights)
        file = directory / ADAPTER / FILE
        tensors = safetensors.torch.load_file(file)
        safetensors.torch.save_file({name: 2 * t if "lora_B" in name else t for name, t in tensors.items()}, file)

    monkeypatch.setattr(effect, "export_model", doubled)
    with pytest.raises(SettingsError, match=r"^model\.lora: exported and loaded again, what is trained draws another"):
        check(ModelSettings(base=str(tiny_base)))


def test_what_cannot_be_loaded_again_is_refused(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effect, "export_model", lambda directory, model, weights: None)
    with pytest.raises(SettingsError, match=r"^model\.lora: what a first tiny batch trained cannot be exported and"):
        check(ModelSettings(base=str(tiny_base)))


def test_random_weights_that_draw_no_numbers_are_passed_by(tiny_base: Path) -> None:
    check(ModelSettings(base=str(tiny_base)), lambda pipeline: torch.full((1, 3, 8, 8), torch.nan))
