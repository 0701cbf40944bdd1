import pytest
import torch

from rewards import create
from rewards.fitting.variants import blurred, noisy
from rewards.scoring import score

from .conftest import LEARNED


@pytest.mark.parametrize("name", ["preference", "heldout_preference"])
def test_preference_tells_the_styles_apart(name, learned, pairs):
    glossy, flat, labels = pairs
    for variant in (lambda images: images, blurred(1.0), noisy(0.05)):
        liked, other = score(learned[name], variant(glossy), labels), score(learned[name], variant(flat), labels)
        assert (liked > other).double().mean() >= 0.8
        assert liked.mean() - other.mean() > 2
        assert liked.abs().max() < 15


@pytest.mark.parametrize("name", ["preference", "heldout_preference"])
def test_empty_and_noisy_images_are_not_preferred(name, learned, pairs):
    _, flat, labels = pairs
    typical = score(learned[name], flat, labels).mean()
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(4, 3, 64, 64, generator=generator)
    gaussian = (0.5 + 0.25 * torch.randn(4, 3, 64, 64, generator=generator)).clamp(0, 1)
    grey = torch.linspace(0, 1, 5).view(5, 1, 1, 1).expand(5, 3, 64, 64)
    colours = torch.eye(3).view(3, 3, 1, 1).expand(3, 3, 64, 64)
    nothing = torch.cat([noise, gaussian, grey, colours])
    assert (score(learned[name], nothing, [""] * len(nothing)) < typical).all()


@pytest.mark.parametrize("name", ["alignment", "heldout_alignment"])
def test_alignment_knows_what_is_shown(name, learned, pairs):
    glossy, flat, labels = pairs
    for images in (glossy, flat):
        scores = learned[name].table(images, labels)
        own = scores.diag()
        assert (own[:, None] > scores).double().mean() > 0.8
        assert own.mean() - scores.mean() > 0.1
        assert scores.mean().abs() < 0.1
        assert scores.abs().max() <= 1


def test_alignment_table_holds_the_scores(learned, pairs):
    glossy, _, labels = pairs
    table = learned["alignment"].table(glossy[:4], labels[:4])
    torch.testing.assert_close(table.diag(), learned["alignment"](glossy[:4], labels[:4]))


def test_alignment_does_not_depend_on_what_was_asked_before(pairs):
    glossy, _, labels = pairs
    fresh = create("alignment")
    first = fresh(glossy[:4], labels[:4])
    fresh(glossy[:4], ["a much longer prompt than any of those before, with a comma or two", "", "x", "y"])
    assert torch.equal(fresh(glossy[:4], labels[:4]), first)


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize("size", [(32, 48), (200, 200)])
def test_images_of_any_size(name, size, learned):
    assert learned[name](torch.rand(2, 3, *size), ["a cat", "a dog"]).isfinite().all()


def test_each_weights_file_has_a_hash_of_its_own(learned):
    hashes = {reward.weights_hash for reward in learned.values()} | {create("jpeg_compressibility").weights_hash}  # type: ignore[attr-defined]
    assert len(hashes) == 5
    assert all(len(h) == 64 for h in hashes)
    assert create("jpeg_compressibility", quality=50).weights_hash not in hashes  # type: ignore[attr-defined]


def test_jpeg_compressibility():
    reward = create("jpeg_compressibility")
    images = torch.stack([torch.full((3, 64, 64), 0.5), torch.rand(3, 64, 64)])
    flat, noise = reward(images, ["", ""]).tolist()
    assert -10 < noise < flat < 0
    assert create("jpeg_compressibility", quality=20)(images, ["", ""])[1] > noise
