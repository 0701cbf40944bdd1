"""A sampler whose model cannot be read says so at its first batch, where it ends the run; it is not started again."""

from pathlib import Path

import pyarrow as pa
import pytest

from sdo_ray.blocks import _OnBlocks, packed
from sdo_ray.config.align import AlignSettings
from sdo_ray.config.loading import load_settings
from sdo_ray.rollout.sampler import Sampler
from sdo_ray.settings import SettingsError
from tests.support.runs import tiny_settings


def test_a_model_that_cannot_be_read_is_said_by_the_first_batch(tmp_path: Path) -> None:
    settings = load_settings(AlignSettings, tiny_settings(tmp_path, tmp_path / "nowhere"))
    arguments = {"config": settings.sampler_config(), "policies": None, "reward_actors": {}}
    batch = pa.table({"update": [0]})
    with pytest.raises(SettingsError, match="nowhere"):
        Sampler(**arguments)(batch)
    with pytest.raises(SettingsError, match="nowhere"):
        _OnBlocks(_Failing, {})(packed(batch))


class _Failing:
    def __init__(self) -> None:
        raise SettingsError("nowhere")

    def __call__(self, block: pa.Table) -> pa.Table:
        return block
