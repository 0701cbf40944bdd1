"""Rewards that compare with images from files."""

from typing import Any

import pytest
import torch
from PIL import Image

from rewards import create
from rewards.features import FeatureSettings, ImageFeatures
from rewards.registry import RewardError, check
from rewards.scoring import score, score_with_gradient
from rewards.towers.references import image_files, read_image

from .tiny.dino import save_dino


def save(path, red):
    Image.new("RGB", (20, 30), (red, 90, 200)).save(path)
    return path


def test_an_image_is_most_like_itself(tmp_path):
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    pixels = (image[0] * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(tmp_path / "own.png")
    reward = create("perceptual_similarity", image=tmp_path / "own.png", size=64)
    own, noisy, other = (
        score(reward, x, [""]).item() for x in (image, image + 0.1 * torch.randn(1, 3, 64, 64), 1 - image)
    )
    assert own == pytest.approx(0, abs=1e-4)
    assert own > noisy > other > -4


def test_similarity_is_the_mean_over_the_references(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    files = [save(folder / f"{red}.png", red) for red in (10, 250)]
    (folder / "notes.txt").write_text("no image")
    assert image_files(folder) == sorted(files)
    dino = str(save_dino(tmp_path / "dino"))
    image = torch.rand(2, 3, 30, 20)
    both, *each = (
        score(create("image_similarity", source=dino, references=path), image, ["", ""]) for path in (folder, *files)
    )
    torch.testing.assert_close(both, (each[0] + each[1]) / 2)
    own = create("image_similarity", source=dino, references=files[0])
    assert score(own, read_image(files[0]), [""]).item() == pytest.approx(1, abs=1e-5)
    assert [part.source for part in vars(own)["checkpoints"]] == [dino, str(files[0])]


@pytest.mark.parametrize("name", ["image_similarity", "mmd", "frechet"])
def test_no_references(name, tmp_path):
    with pytest.raises(RewardError, match="there are no images at"):
        check(name, {"references": str(tmp_path)})
    if name != "image_similarity":
        with pytest.raises(RewardError, match="give 2 images or more, as a folder"):
            check(name, {"references": str(save(tmp_path / "one.png", 1))})


def test_features_that_no_hub_is_asked_for(tmp_path):
    """`efficientnet-lite0` is the network of `Preference`, its vectors brought to length 1."""
    for number in range(3):
        save(tmp_path / f"{number}.png", 80 * number)
    options = {"references": tmp_path, "source": "efficientnet-lite0"}
    check("mmd", options)
    images = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    reward: Any = create("mmd", **options)
    features = ImageFeatures(FeatureSettings(size=96))(images)
    torch.testing.assert_close(reward._tower.images(images), features / features.norm(dim=1, keepdim=True))
    assert score_with_gradient(reward, images, ["", ""])[1].abs().max() > 0
    assert reward.checkpoints[0].source == "efficientnet-lite0"
    with pytest.raises(RewardError, match="'dtype' must be float32 with efficientnet-lite0"):
        check("mmd", options | {"dtype": "bfloat16"})
