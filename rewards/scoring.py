"""Scores of samples and their gradients, one sample at a time in one backward.

Samples are images [B, 3, H, W], or what else the reward judges, see `rewards.modality`; they are called images here.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rewards.modality import fits, named
from rewards.registry import Reward
from rewards.towers.sharing import same_images


class RewardMistake(ValueError):
    """A reward that does not do what a reward has to: it would not the next time either."""


def score(reward: Reward, images: Tensor, prompts: list[str]) -> Tensor:
    """Scores without a graph.

    Args:
        reward: any reward.
        images: [B, 3, H, W] in [0, 1], on any device.
        prompts: B prompts.

    Returns:
        Scores, float32 [B], on the images' device.

    Raises:
        ValueError: another number of prompts.
        RewardMistake: it judges samples of another shape, or returned something other than a tensor [B].
    """
    with torch.no_grad():
        return _scores(reward, _inputs(reward, images, prompts), prompts).to(images.device)


def score_with_gradient(reward: Reward, images: Tensor, prompts: list[str]) -> tuple[Tensor, Tensor | None]:
    """Scores and d score_b / d image_b, computed in float32 on the reward's own device.

    One backward of the summed scores gives every image its own gradient: d(sum_b s_b)/dx_b = ds_b/dx_b, because a
    image's score depends on that image alone. For a reward of whole batches (`batchwise`) it is what its image does to
    the sum of all scores, which is such a reward's meaning.

    Args:
        reward: any reward. `differentiable` says whether there will be a gradient.
        images: [B, 3, H, W] in [0, 1], on any device. Left as they are: the gradient is taken on a detached copy.
        prompts: B prompts.

    Returns:
        Scores, float32 [B], and gradients, float32 [B, 3, H, W], or None for a black-box reward; both on the images'
        device and without a graph. Values are passed on as they are, non-finite ones too.

    Raises:
        ValueError: as `score`.
        RewardMistake: as `score`; or it says that it is differentiable, and its scores carry no graph.
    """
    if not reward.differentiable:
        return score(reward, images, prompts), None
    return gradient_of_changed(reward, images, prompts, lambda x: x)


def gradient_of_changed(
    reward: Reward, images: Tensor, prompts: list[str], change: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Scores of what `change` makes of each image, and their gradients at the images; see `score_with_gradient`."""
    with torch.enable_grad():
        leaf = _inputs(reward, images, prompts).requires_grad_()
        scores = _scores(reward, change(leaf), prompts)
        gradient = _gradient(reward, scores, leaf)
    return scores.detach().to(images.device), gradient.to(images.device)


def score_on_one_network(
    rewards: Sequence[Reward], images: Tensor, prompts: Sequence[list[str]], want_gradient: Sequence[bool]
) -> list[tuple[Tensor, Tensor | None]]:
    """What `score_with_gradient` or, where no gradient is wanted, `score` gives for each of several rewards.

        u = network(x),  s_r = h_r(u),  ds_r/dx = (du/dx)^T ds_r/du

    The network's forward pass, and the graph that it leaves, are one; a gradient is a backward pass of its own.

    Args:
        rewards: made within one `shared_networks`, on one device. None of them may write to its images.
        images: as there.
        prompts: B prompts for each.
        want_gradient: for each.

    Raises:
        ValueError, RewardMistake: as there.
    """
    wanted = [reward.differentiable and want for reward, want in zip(rewards, want_gradient, strict=True)]
    for reward, asked in zip(rewards, prompts, strict=True):
        _check_inputs(reward, images, asked)
    with torch.set_grad_enabled(any(wanted)), same_images():
        leaf = _copy(rewards[0], images).requires_grad_(any(wanted))
        found = [
            _checked(reward, _asked(reward, leaf, asked), leaf) for reward, asked in zip(rewards, prompts, strict=True)
        ]
        gradients = [
            _gradient(reward, scores, leaf).to(images.device) if want else None
            for reward, scores, want in zip(rewards, found, wanted, strict=True)
        ]
    return [(scores.detach().to(images.device), gradient) for scores, gradient in zip(found, gradients, strict=True)]


def _inputs(reward: Reward, images: Tensor, prompts: list[str]) -> Tensor:
    """A detached float32 copy of the images on the reward's device."""
    _check_inputs(reward, images, prompts)
    return _copy(reward, images)


def _check_inputs(reward: Reward, images: Tensor, prompts: list[str]) -> None:
    modality = getattr(reward, "modality", "image")
    if not fits(tuple(images.shape), modality):
        raise RewardMistake(
            f"reward {type(reward).__name__} judges {named(modality)}, and was given {list(images.shape)}"
        )
    if len(prompts) != len(images):
        raise ValueError(f"each sample needs its own prompt: got {len(images)} samples and {len(prompts)} prompts")


def _copy(reward: Reward, images: Tensor) -> Tensor:
    return images.detach().to(getattr(reward, "device", images.device), torch.float32, copy=True)


def _scores(reward: Reward, images: Tensor, prompts: list[str]) -> Tensor:
    # A copy with a graph, as a leaf that requires a gradient cannot be written to, and a reward may do so.
    return _checked(reward, _asked(reward, images.clone() if images.requires_grad else images, prompts), images)


def _asked(reward: Reward, images: Tensor, prompts: list[str]) -> object:
    try:
        return reward(images, prompts)
    except RuntimeError as error:
        said = str(error)
        types = any(words in said for words in ("should be the same", "same dtype", "scalar type"))
        if not types or not any(other in said.lower() for other in ("half", "bfloat16", "double")):
            raise  # of another cause, such as a network on another device
        raise RewardMistake(
            f"reward {type(reward).__name__} is given float32 images, and its network is of another type ({error}); "
            "have it cast one to the type of the other"
        ) from error


def _checked(reward: Reward, scores: object, images: Tensor) -> Tensor:
    """What a reward returned, if it is what it must be, in float32."""
    wanted = f"reward {type(reward).__name__} must return a tensor [{len(images)}], one score per image"
    if not isinstance(scores, Tensor):
        raise RewardMistake(f"{wanted}; it returned a {type(scores).__name__}")
    if scores.shape != (len(images),):
        raise RewardMistake(f"{wanted}; it returned {list(scores.shape)}")
    return scores.float()


def _gradient(reward: Reward, scores: Tensor, leaf: Tensor) -> Tensor:
    """d score_b / d image_b; the graph stays, for whoever else is on it."""
    if not scores.requires_grad:
        raise RewardMistake(
            f"reward {type(reward).__name__} says differentiable = True, but its scores carry no graph back to "
            "the images; is there a torch.no_grad, .detach() or numpy inside? If it has to be, set "
            "differentiable = False"
        )
    (gradient,) = torch.autograd.grad(scores.sum(), leaf, retain_graph=True)
    return gradient
