import pytest
import torch
from safetensors import safe_open

import rewards.fitting.alignment as alignment
import rewards.fitting.preference as preference
from rewards import create
from rewards.fitting.common import write_head
from rewards.fitting.images import Images, read_images
from rewards.fitting.variants import as_is, blurred, flipped, noisy, shifted
from rewards.heads import WEIGHTS


@pytest.fixture(scope="module")
def few(heldout):
    """32 images of 16 concepts."""
    chosen = heldout.style_pairs()[:16].flatten().tolist()
    return Images(
        heldout.images[chosen],
        [heldout.captions[i] for i in chosen],
        [heldout.labels[i] for i in chosen],
        [heldout.styles[i] for i in chosen],
    )


def test_preference_weights_come_out_the_same(few, learned, tmp_path):
    reward = learned["preference"]
    for name in ("a", "b"):
        write_head(tmp_path / name, preference.fit(few, reward._features))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    fitted = create("preference", weights=str(tmp_path / "a"))
    glossy, flat = few.style_pairs().unbind(1)
    scores = fitted(few.images, [])
    assert (scores[glossy] > scores[flat]).all()
    assert scores.mean().abs() < 0.1  # 0 is half way
    assert fitted.weights_hash != reward.weights_hash  # type: ignore[attr-defined]


def test_alignment_weights_come_out_the_same(few, learned, tmp_path):
    reward = learned["alignment"]
    for name in ("a", "b"):
        write_head(tmp_path / name, alignment.fit(few, reward._features, reward._embed))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    fitted = create("alignment", weights=str(tmp_path / "a"))
    scores = fitted.table(few.images, few.labels)  # type: ignore[attr-defined]
    assert ((scores > scores.diag()[:, None]).sum(1).double().median()) <= 4  # of 32; the ridge is for many more images


def test_ridge_closed_form():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 4, dtype=torch.float64, generator=generator) * torch.tensor([1.0, 2.0, 5.0, 0.5])
    y = torch.randn(50, 3, dtype=torch.float64, generator=generator)
    weight, bias = alignment.ridge(x, y, 7.0)
    # The gradient of |Z V - y|^2 + 7 |V|^2 is zero at V = weight * scale, Z the standardised inputs.
    z, scale = (x - x.mean(0)) / x.std(0), x.std(0)
    v = weight * scale[:, None]
    torch.testing.assert_close(z.T @ (z @ v - y) + 7 * v, torch.zeros(4, 3, dtype=torch.float64))
    torch.testing.assert_close(x @ weight + bias, z @ v)


def test_bradley_terry_is_at_its_minimum():
    generator = torch.Generator().manual_seed(0)
    differences = torch.randn(40, 6, dtype=torch.float64, generator=generator) + 0.5
    weight = preference._bradley_terry(differences)
    wrong = torch.sigmoid(-differences @ weight)
    gradient = preference.RIDGE * weight - (differences * wrong[:, None]).mean(0)
    assert gradient.norm() < 1e-5


def test_splits_share_no_concept(table, heldout):
    train = read_images(table, "train")
    assert not set(train.labels) & set(heldout.labels)
    assert len(train.labels) + len(heldout.labels) == 2488


def test_unknown_split(table):
    with pytest.raises(ValueError, match="no images of split 'test'"):
        read_images(table, "test")


@pytest.mark.parametrize("variant", [as_is, flipped, shifted, blurred(1.0), noisy(0.1)])
def test_variants_are_deterministic_images(variant, few):
    changed = variant(few.images)
    assert changed.shape == few.images.shape
    assert changed.min() >= -1e-6
    assert changed.max() <= 1 + 1e-6
    assert torch.equal(changed, variant(few.images))


def test_blur_keeps_a_constant_image_and_the_mean_of_noise():
    constant = torch.full((1, 3, 16, 16), 0.3)
    torch.testing.assert_close(blurred(1.5)(constant), constant)


def test_weights_are_small_and_plain():
    for file in WEIGHTS.glob("*.safetensors"):
        assert file.stat().st_size < 1_000_000
        with safe_open(file, framework="pt") as head:
            assert all(head.get_tensor(name).isfinite().all() for name in head.keys())  # noqa: SIM118
