"""What every reward keeps, whatever it is: one test for all, on tiny instances of their real classes.

A new reward is a line in `tiny/cases.py`. `python -m tests.rewards.tiny.pins` writes the pinned scores anew.
"""

import math

import pytest
import torch

import rewards
from rewards import create, spec_of
from rewards.registry import check
from rewards.scoring import score, score_with_gradient

from .tiny.cases import CASES
from .tiny.pins import PINS, images_of, read_pins
from .tiny.precision import in_float64


def of_each(names):
    """The test for each of these rewards; some are too slow for the quick tests."""
    marks = {name: [pytest.mark.slow] if CASES[name].slow else [] for name in CASES}
    return pytest.mark.parametrize("name", [pytest.param(name, marks=marks[name]) for name in names])


every = of_each(CASES)
alone = of_each(name for name in CASES if not spec_of(name).batchwise)
"""Those that score each image for itself."""


class Maker:
    """Rewards by name, each made once; other options make another one."""

    def __init__(self, folders):
        self._folders, self._options, self._made = folders, {}, {}

    def options(self, name):
        if name not in self._options:
            self._options[name] = CASES[name].options(self._folders.mktemp(name))
        return self._options[name]

    def __call__(self, name, **changes):
        key = (name, *changes.items())
        if key not in self._made:
            self._made[key] = create(CASES[name].path or name, **{**self.options(name), **changes})
        return self._made[key]


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    return Maker(tmp_path_factory)


def has_option(name, option):
    return option in spec_of(name).options


def test_every_reward_is_in_the_contract():
    assert set(rewards.available()) == set(CASES)
    assert set(read_pins()) == set(CASES), f"write {PINS} anew"


@every
def test_score_is_the_pinned_one(name, make):
    found = score(make(name), images_of(name), list(CASES[name].prompts))
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx(read_pins()[name], rel=1e-3, abs=1e-5)


@of_each(name for name, case in CASES.items() if case.computes_as is None)
def test_gradient_is_that_of_finite_differences(name, make):
    case, number = CASES[name], 2 if spec_of(name).batchwise else 1
    images, prompts = images_of(name)[:number], list(case.prompts)[:number]
    if not make(name).differentiable:
        assert score_with_gradient(make(name), images, prompts)[1] is None
        return
    reward = in_float64(make(name, dtype="float64") if has_option(name, "dtype") else make(name))
    images = images.double().requires_grad_()
    (gradient,) = torch.autograd.grad(reward(images, prompts).sum(), images)
    generator = torch.Generator().manual_seed(0)
    slopes, differences = [], []
    for _ in range(8):
        direction = torch.randn(images.shape, generator=generator).to(images)
        with torch.no_grad():
            ahead, behind = (reward(images + step * direction, prompts).sum() for step in (case.step, -case.step))
        differences.append((ahead - behind).item() / (2 * case.step))
        slopes.append((gradient * direction).sum().item())
    size = max(map(abs, slopes))
    assert size > 0
    assert slopes == pytest.approx(differences, rel=case.tolerance, abs=case.tolerance * size)


@alone
def test_a_batch_of_two_is_two_of_one(name, make):
    reward, images, prompts = make(name), images_of(name), list(CASES[name].prompts)
    together, gradients = score_with_gradient(reward, images, prompts)
    for i in range(2):
        alone, gradient = score_with_gradient(reward, images[i : i + 1], prompts[i : i + 1])
        torch.testing.assert_close(alone, together[i : i + 1], rtol=1e-4, atol=1e-5)
        if gradients is not None:
            torch.testing.assert_close(gradient, gradients[i : i + 1], rtol=1e-3, atol=1e-5)


@every
@pytest.mark.parametrize("size", [(32, 48), (70, 33), (9, 9)])
def test_images_of_other_shapes(name, size, make):
    shape = {"image": (3, *size), "video": (3, 3, *size), "audio": (1, 30 * sum(size))}[spec_of(name).modality]
    images = torch.rand(2, *shape, generator=torch.Generator().manual_seed(1))
    assert score(make(name), images, list(CASES[name].prompts)).isfinite().all()


@every
def test_half_precision_is_near(name, make):
    images, prompts = images_of(name), list(CASES[name].prompts)
    if has_option(name, "dtype"):
        found, gradient = score_with_gradient(make(name, dtype="bfloat16"), images, prompts)
    else:
        found, gradient = score_with_gradient(make(name), images.bfloat16(), prompts)
    assert found.dtype == torch.float32
    expected = score(make(name), images, prompts)
    torch.testing.assert_close(found, expected, rtol=0.1, atol=0.1 * max(1.0, expected.abs().max().item()))
    assert gradient is None or gradient.isfinite().all()


@alone
def test_an_image_with_nan_has_no_score_and_leaves_the_others_theirs(name, make):
    reward, images, prompts = make(name), images_of(name), list(CASES[name].prompts)
    broken = images.clone()
    broken[0, :, : images.shape[2] // 2] = math.nan
    scores = score(reward, broken, prompts)
    assert scores[0].isnan()
    torch.testing.assert_close(scores[1], score(reward, images, prompts)[1], rtol=1e-4, atol=1e-5)


@every
def test_wrong_inputs_are_refused(name, make):
    reward, images, prompts = make(name), images_of(name), list(CASES[name].prompts)
    with pytest.raises(ValueError, match=r"s must be|judges"):
        score(reward, images[0], prompts)
    with pytest.raises(ValueError, match="needs its own prompt"):
        score(reward, images, prompts[:1])


@every
def test_says_what_it_is(name, make):
    spec = spec_of(name)
    assert spec.licence
    assert spec.about
    check(name, make.options(name), CASES[name].prompts)
    reward = make(name)
    if has_option(name, "device"):
        assert reward.device == "cpu"
    if has_option(name, "source"):
        assert all(len(part.sha256) == 64 for part in reward.checkpoints)
        with pytest.raises(ValueError, match="source"):
            reward.check_use((), source="./nowhere")
    if has_option(name, "dtype"):
        with pytest.raises(ValueError, match="'dtype' must be one of float32"):
            reward.check_use((), dtype="int8")
