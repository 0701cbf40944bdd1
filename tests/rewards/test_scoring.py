import copy

import pytest
import torch

from rewards import create
from rewards.scoring import RewardMistake, score, score_with_gradient

from .conftest import LEARNED
from .test_registry import Brightness


@pytest.mark.parametrize("name", LEARNED)
def test_scores_and_gradients_do_not_depend_on_the_batch(name, learned, pairs):
    glossy, flat, labels = pairs
    images, prompts = torch.cat([glossy[:3], flat[:2]]), labels[:5]
    together, gradients = score_with_gradient(learned[name], images, prompts)
    alone = [score_with_gradient(learned[name], images[i : i + 1], prompts[i : i + 1]) for i in range(5)]
    torch.testing.assert_close(together, torch.cat([s for s, _ in alone]), rtol=1e-4, atol=1e-5)
    expected = torch.cat([g for _, g in alone])  # type: ignore[misc]
    assert (gradients - expected).norm() < 1e-4 * expected.norm()


@pytest.mark.parametrize("name", LEARNED)
def test_gradient_agrees_with_finite_differences(name, learned, pairs):
    """The float32 gradient against central differences of the same reward in float64, in random directions."""
    images, prompts = pairs[0][:2] * 0.9 + 0.05, pairs[2][:2]
    _, gradient = score_with_gradient(learned[name], images, prompts)
    exact = in_double(learned[name])
    generator = torch.Generator().manual_seed(0)
    for direction in [*torch.randn(3, 2, 3, 64, 64, dtype=torch.float64, generator=generator), gradient.double()]:
        step = 1e-9 * direction  # drawings are flat: many activations lie at a kink of ReLU6 together
        difference = (exact(images + step, prompts) - exact(images - step, prompts)) / 2e-9
        error = (gradient * direction).sum((1, 2, 3)) - difference
        assert (error.abs() < 0.01 * gradient.flatten(1).norm(dim=1)).all()


def in_double(reward):
    """A copy of a learned reward that computes in float64."""
    exact = copy.copy(reward)
    exact._features = copy.copy(reward._features)
    exact._features._network = copy.deepcopy(reward._features._network).double()
    for owner in (exact, exact._features):
        vars(owner).update({name: value.double() for name, value in vars(owner).items() if torch.is_tensor(value)})
    if hasattr(reward, "_cache"):
        exact._cache = {prompt: target.double() for prompt, target in reward._cache.items()}
    return exact


def test_black_box_has_no_gradient():
    images = torch.rand(2, 3, 16, 16)
    scores, gradient = score_with_gradient(create("jpeg_compressibility"), images, ["", ""])
    assert scores.shape == (2,)
    assert gradient is None


def test_images_are_left_alone():
    images = torch.rand(2, 3, 8, 8, dtype=torch.float16, requires_grad=True)
    scores, gradient = score_with_gradient(Brightness(gain=6), images, ["", ""])
    torch.testing.assert_close(gradient, torch.full((2, 3, 8, 8), 6 / 192))
    assert gradient.dtype == scores.dtype == torch.float32
    assert not scores.requires_grad
    assert images.grad is None


def test_gradient_inside_no_grad():
    with torch.no_grad():
        assert score_with_gradient(Brightness(), torch.rand(1, 3, 4, 4), [""])[1] is not None


def test_one_bad_image_leaves_the_others_alone():
    images = torch.rand(3, 3, 8, 8)
    images[1, 0, 0, 0] = torch.nan
    scores, gradient = score_with_gradient(Brightness(), images, [""] * 3)
    assert scores.isfinite().tolist() == [True, False, True]
    assert gradient[[0, 2]].isfinite().all()  # type: ignore[index]
    assert create("jpeg_compressibility")(images, [""] * 3).isfinite().tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("images", "prompts", "message"),
    [
        (torch.rand(3, 8, 8), [""] * 3, r"judges images \[B, 3, H, W\], and was given \[3, 8, 8\]"),
        (torch.rand(2, 4, 8, 8), [""] * 2, r"judges images \[B, 3, H, W\], and was given \[2, 4, 8, 8\]"),
        (torch.rand(2, 3, 8, 8), [""], "2 samples and 1 prompts"),
    ],
)
def test_wrong_inputs(images, prompts, message):
    with pytest.raises(ValueError, match=message):
        score_with_gradient(Brightness(), images, prompts)


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (lambda images: images, r"it returned \[2, 3, 8, 8\]"),
        (lambda images: images.mean(), r"it returned \[\]"),
        (lambda images: [0.0, 1.0], "it returned a list"),
        (lambda images: (images.mean((1, 2, 3)), {}), "it returned a tuple"),
        (lambda images: {"score": images.mean((1, 2, 3))}, "it returned a dict"),
        (lambda images: None, "it returned a NoneType"),
    ],
)
@pytest.mark.parametrize("scored", [score, score_with_gradient])
def test_what_is_no_tensor_of_one_score_per_image(returned, said, scored):
    class Wrong(Brightness):
        def __call__(self, images, prompts):
            return returned(images)

    with pytest.raises(RewardMistake, match=rf"Wrong must return a tensor \[2\], one score per image; {said}"):
        scored(Wrong(), torch.rand(2, 3, 8, 8), [""] * 2)


def test_a_reward_may_write_to_its_images():
    class InPlace(Brightness):
        def __call__(self, images, prompts):
            return super().__call__(images.sub_(0.5).mul_(2), prompts)

    images = torch.rand(2, 3, 8, 8)
    before = images.clone()
    scores, gradient = score_with_gradient(InPlace(), images, [""] * 2)
    torch.testing.assert_close(scores, 2 * (before - 0.5).mean((1, 2, 3)))
    torch.testing.assert_close(gradient, torch.full_like(images, 2 / 192))
    assert torch.equal(score(InPlace(), images, [""] * 2), scores)
    assert torch.equal(images, before)


def test_a_detached_reward_must_not_call_itself_differentiable():
    class Detached(Brightness):
        def __call__(self, images, prompts):
            return super().__call__(images.detach(), prompts)

    with pytest.raises(RewardMistake, match="Detached says differentiable = True, but its scores carry no graph"):
        score_with_gradient(Detached(), torch.rand(2, 3, 8, 8), [""] * 2)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("Input type (torch.FloatTensor) and weight type (torch.cuda.FloatTensor) should be the same", RuntimeError),
        (
            "Input type (torch.cuda.FloatTensor) and weight type (torch.cuda.HalfTensor) should be the same",
            RewardMistake,
        ),
        ("expected scalar type Float but found Double", RewardMistake),
    ],
)
def test_a_network_on_another_device_is_not_one_of_another_type(said, kind):
    class Elsewhere(Brightness):
        def __call__(self, images, prompts):
            raise RuntimeError(said)

    with pytest.raises(kind):
        score(Elsewhere(), torch.rand(2, 3, 8, 8), [""] * 2)
