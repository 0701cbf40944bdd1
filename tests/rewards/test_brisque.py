"""BRISQUE's statistics by distributions that are known, and its regression by a plain loop."""

import math

import pytest
import torch

from rewards import create
from rewards.brisque import features, fit
from rewards.scoring import score
from rewards.towers.svr import SupportVectorRegression, read_ranges

from .tiny.brisque import save_brisque


def test_shapes_and_spreads_of_known_distributions():
    generator = torch.Generator().manual_seed(0)
    gaussian = 0.7 * torch.randn(200_000, dtype=torch.float64, generator=generator)
    shape, left, right = fit(gaussian)
    assert (shape.item(), left.item(), right.item()) == pytest.approx((2, 0.7, 0.7), rel=0.03)
    uniform = torch.rand(200_000, dtype=torch.float64, generator=generator) - 0.5
    laplace = -uniform.sign() * torch.log1p(-2 * uniform.abs())
    assert fit(laplace)[0].item() == pytest.approx(1, rel=0.03)
    lopsided = torch.where(gaussian < 0, 3 * gaussian, gaussian)
    assert (fit(lopsided)[1] / fit(lopsided)[2]).item() == pytest.approx(3, rel=0.03)


def test_the_regression_is_its_sum(tmp_path):
    (tmp_path / "model").write_text(
        "svm_type epsilon_svr\nkernel_type rbf\ngamma 0.5\nnr_class 2\ntotal_sv 2\nrho -3\nSV\n2 1:0.5 3:-1 \n-1 2:1 \n"
    )
    x = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    first, second = 0.4**2 + 0.2**2 + 1.3**2, 0.1**2 + 0.8**2 + 0.3**2
    expected = 2 * math.exp(-0.5 * first) - math.exp(-0.5 * second) + 3
    assert SupportVectorRegression(tmp_path / "model")(x) == pytest.approx(expected)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "file").write_text("svm_type c_svc\nkernel_type rbf\nSV\n1 1:1\n")
    with pytest.raises(ValueError, match="no support vector regression"):
        SupportVectorRegression(tmp_path / "file")
    with pytest.raises(ValueError, match="no ranges of 36 features"):
        read_ranges(tmp_path / "file", 36)


def test_noise_and_blur_change_the_statistics_and_an_empty_image_has_none(tmp_path):
    rows, columns = torch.meshgrid(torch.arange(48.0), torch.arange(48.0), indexing="ij")
    image = (0.5 + 0.3 * torch.sin(rows / 3) * torch.cos(columns / 5)).expand(1, 3, 48, 48).double()
    noisy = image + 0.1 * torch.randn(image.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    # Of noise, n is nearly Gaussian; of a smooth image it is not.
    assert abs(features(noisy)[0] - 2) < 0.5 < abs(features(image)[0] - 2)
    assert score(create("brisque", **save_brisque(tmp_path)), torch.zeros(1, 3, 24, 24), [""]).isnan().all()
