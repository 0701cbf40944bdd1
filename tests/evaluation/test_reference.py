"""Real images as a reference."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from PIL import Image

from sdo_ray.evaluation.reference import check_reference, reference_features
from sdo_ray.evaluation.settings import ReferenceSettings
from sdo_ray.settings import SettingsError


class Colours:
    """A stand-in for the actor's handle that needs no cluster: `extract.remote` gives the mean colours."""

    class extract:
        @staticmethod
        def remote(images: np.ndarray) -> np.ndarray:
            return images.mean(axis=(2, 3))


def encoded(colour: tuple[int, ...], size: tuple[int, int], mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, colour).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "get", lambda value: value)


def settings(path: Path, images: list[Any], **changes: Any) -> ReferenceSettings:
    pq.write_table(pa.table({"image": images}), path / "pictures.parquet")
    return ReferenceSettings(path=str(path / "pictures.parquet"), **changes)


def test_images_of_several_sizes_on_white(tmp_path: Path) -> None:
    images = [encoded((i, 0, 0), (4 + i % 3, 5)) for i in range(50)] + [encoded((9, 9, 9, 0), (4, 4), "RGBA")]
    found = reference_features(settings(tmp_path, images), 0, Colours)
    assert found.shape == (51, 3)
    reds = sorted(round(255 * red) for red in found[:, 0])
    assert reds == [*range(50), 255]  # the transparent one is white


def test_a_drawn_part_of_them_the_same_for_a_seed(tmp_path: Path) -> None:
    some = settings(tmp_path, [{"bytes": encoded((i, 0, 0), (4, 4))} for i in range(50)], num_images=10)
    first, again, other = (reference_features(some, seed, Colours) for seed in (1, 1, 2))
    assert len(first) == 10
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_refuses(tmp_path: Path) -> None:
    good = settings(tmp_path, [encoded((0, 0, 0), (4, 4))] * 2)
    check_reference(good)
    for changes, said in (
        ({"path": "nowhere"}, r"^path: 'nowhere' cannot be read as parquet"),
        ({"column": "photo"}, r"^column: .* has no column 'photo'; it has image"),
    ):
        with pytest.raises(SettingsError, match=said):
            check_reference(good.model_copy(update=changes))
    with pytest.raises(SettingsError, match="has 1 rows; a set takes two"):
        check_reference(settings(tmp_path, [encoded((0, 0, 0), (4, 4))]))
    with pytest.raises(SettingsError, match=r"row 0 of 'image' in .* is no image"):
        check_reference(settings(tmp_path, [b"no image", b"no image"]))
