"""Options with which a call fails are refused for the jobs that try no whole batch, large models' by a stand-in."""

from pathlib import Path
from typing import Any

import pytest

from sdo_ray.dry_batch import options
from sdo_ray.dry_batch.options import check_options_by_a_call
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
        check_options_by_a_call(str(tiny_base), sampling)
        return
    with pytest.raises(SettingsError, match=said) as caught:
        check_options_by_a_call(str(tiny_base), sampling)
    assert "tiny batch" not in str(caught.value)
