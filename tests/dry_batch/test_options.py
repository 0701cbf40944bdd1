"""Options with which a call fails are refused for the jobs that try no whole batch, large models' by a stand-in."""

from pathlib import Path
from typing import Any

import pytest

from sdo_ray.dry_batch import options
from sdo_ray.dry_batch.options import check_options_by_a_call
from sdo_ray.models.load import load_pipeline
from sdo_ray.rollout.settings import SamplingSettings
from sdo_ray.settings import SettingsError

SIZE = {"height": 32, "width": 32}


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"num_images_per_prompt": 2}, "sampling.options.num_images_per_prompt: got 2, with which it fails: "),
        ({"height": 33, "width": 32}, "sampling.options.height: got 33, with which it fails: .*divisible by 8"),
        ({"callback_on_step_end": "print"}, None),  # called after the first denoiser call
        (SIZE, None),
        ({}, None),
    ],
)
def test_options(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch, large: bool, given: dict[str, Any], said: str | None
) -> None:
    monkeypatch.setattr(options, "is_large", lambda base: large)
    sampling = SamplingSettings(num_inference_steps=2, options=given)
    if said is None:
        check_options_by_a_call(str(tiny_base), sampling, batch_size=2)
        return
    with pytest.raises(SettingsError, match=said) as caught:
        check_options_by_a_call(str(tiny_base), sampling, batch_size=2)
    assert "tiny batch" not in str(caught.value)


def test_a_call_has_as_many_prompts_as_a_sampler_takes(tiny_base: Path) -> None:
    sampling = SamplingSettings(num_inference_steps=2, options=SIZE | {"negative_prompt": ["ugly"]})
    check_options_by_a_call(str(tiny_base), sampling, batch_size=1)
    with pytest.raises(SettingsError, match="negative_prompt"):
        check_options_by_a_call(str(tiny_base), sampling, batch_size=2)


def test_an_option_that_counts_layers_is_no_matter_of_a_stand_in(
    sdxl_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of which it has two."""
    pipeline = load_pipeline(str(sdxl_base))
    for name in ("text_encoder", "text_encoder_2"):
        kind, config = type(pipeline.components[name]), pipeline.components[name].config.to_dict()
        pipeline.register_modules(**{name: kind(kind.config_class(**config | {"num_hidden_layers": 6}))})
    pipeline.save_pretrained(tmp_path)
    sampling = SamplingSettings(num_inference_steps=2, options=SIZE | {"clip_skip": 4})
    too_many = sampling.model_copy(update={"options": SIZE | {"clip_skip": 9}})
    with pytest.raises(SettingsError, match="clip_skip: got 9, with which it fails: IndexError"):
        check_options_by_a_call(str(tmp_path), too_many, batch_size=2)
    for large in (False, True):
        monkeypatch.setattr(options, "is_large", lambda base, large=large: large)
        check_options_by_a_call(str(tmp_path), sampling, batch_size=2)
