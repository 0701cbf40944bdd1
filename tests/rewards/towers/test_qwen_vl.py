"""Patches and sizes of Qwen-VL are those of its processor; the layouts of checkpoints."""

import numpy as np
import pytest
import torch
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize

from rewards.hpsv3 import make_head
from rewards.towers.pixels import CLIP_MEAN, CLIP_STD, normalized
from rewards.towers.qwen_vl import from_old_names, grid_size, patches


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((512, 512), (448, 448)),
        ((1024, 1024), (448, 448)),
        ((768, 768), (420, 420)),
        ((480, 832), (336, 588)),
        ((512, 768), (364, 532)),
    ],
)
def test_sizes_that_were_published(given, expected):
    assert grid_size(given[0], given[1], 28, 448 * 448, 448 * 448) == expected


@pytest.mark.parametrize("given", [(64, 64), (333, 777), (1500, 400), (448, 448), (28, 2000)])
def test_sizes_of_the_processor(given):
    assert grid_size(given[0], given[1], 28, 448 * 448, 448 * 448) == smart_resize(*given, 28, 448 * 448, 448 * 448)


@pytest.mark.parametrize("given", [(240, 320), (480, 832), (336, 588), (720, 1280), (40, 2000)])
def test_sizes_between_two_limits(given):
    limits = 128 * 28 * 28, 448 * 448
    assert grid_size(given[0], given[1], 28, *limits) == smart_resize(*given, 28, *limits)


def test_patches_are_those_of_the_processor():
    image = np.random.default_rng(0).integers(0, 256, (3, 56, 84), dtype=np.uint8)
    processor = Qwen2VLImageProcessorPil(size={"shortest_edge": 56 * 84, "longest_edge": 56 * 84})
    expected = processor([torch.from_numpy(image)], return_tensors="pt", input_data_format="channels_first")
    frames = normalized(torch.from_numpy(image)[None].float() / 255, CLIP_MEAN, CLIP_STD)
    torch.testing.assert_close(patches(frames, 14, 2, 2), expected["pixel_values"], rtol=1e-4, atol=1e-4)
    assert expected["image_grid_thw"].tolist() == [[1, 4, 6]]


def test_a_film_has_its_frames_in_pairs():
    film = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 8, 8)
    found = patches(film, 4, 2, 2)
    assert found.shape == (2 * 4, 3 * 2 * 16)
    assert found[0].view(3, 2, 16)[0, :, 0].tolist() == [0, 1]
    assert found[4].view(3, 2, 16)[0, :, 0].tolist() == [2, 3]
    assert torch.equal(
        patches(film[:3], 4, 2, 2)[4].view(3, 2, 16)[:, 0], patches(film[:3], 4, 2, 2)[4].view(3, 2, 16)[:, 1]
    )


def test_names_of_older_versions():
    old = {"visual.a": 1, "model.layers.0.b": 2, "model.norm.weight": 3, "lm_head.weight": 4, "rm_head.0.weight": 5}
    new = from_old_names(old)
    assert new == {
        "model.visual.a": 1,
        "model.language_model.layers.0.b": 2,
        "model.language_model.norm.weight": 3,
        "lm_head.weight": 4,
        "rm_head.0.weight": 5,
    }
    assert from_old_names(new) == new


def test_the_head_of_hpsv3_has_its_published_keys():
    shapes = {name: list(tensor.shape) for name, tensor in make_head(3584).state_dict().items()}
    sizes = {0: [1024, 3584], 3: [16, 1024], 5: [2, 16]}
    assert shapes == {f"{i}.weight": size for i, size in sizes.items()} | {
        f"{i}.bias": size[:1] for i, size in sizes.items()
    }
