"""What the rewards say to images that are none, and how easily pixels alone talk them round:

    python -m rewards.fitting.probe --images sdo_ray/zoo/data/emoji.parquet

The second part follows a training reward's gradient in pixel space, the shortest way to a high score that means
nothing, and shows how far the evaluators come along.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from rewards.fitting.images import read_images
from rewards.fitting.variants import blurred, noisy
from rewards.registry import Reward, create
from rewards.scoring import score, score_with_gradient

EVALUATORS = {"preference": "heldout_preference", "alignment": "heldout_alignment"}
GREY_LEVEL = 1 / 255


def degenerate(glossy: Tensor) -> dict[str, Tensor]:
    """Damaged versions of images [N, 3, H, W], and images of nothing."""
    generator = torch.Generator().manual_seed(0)
    grey = glossy.mean(1, keepdim=True)
    return {
        "blurred, 1 px": blurred(1.0)(glossy),
        "blurred, 2 px": blurred(2.0)(glossy),
        "noisy, 0.1": noisy(0.1)(glossy),
        "bleached": 0.6 + 0.4 * glossy,
        "over-exposed": (0.5 + 2.5 * (glossy - 0.5)).clamp(0, 1),
        "over-saturated": (grey + 2.5 * (glossy - grey)).clamp(0, 1),
        "uniform noise": torch.rand(glossy.shape, generator=generator),
        "Gaussian noise": (0.5 + 0.25 * torch.randn(glossy.shape, generator=generator)).clamp(0, 1),
        "white": torch.ones_like(glossy),
        "grey": torch.full_like(glossy, 0.5),
        "black": torch.zeros_like(glossy),
    }


def ascend(reward: Reward, images: Tensor, prompts: list[str], steps: int) -> Tensor:
    """Follow the gradient for `steps` steps of half a grey level (root mean square over pixels)."""
    length = 0.5 * GREY_LEVEL * images[0].numel() ** 0.5
    for _ in range(steps):
        _, gradient = score_with_gradient(reward, images, prompts)
        assert gradient is not None
        direction = gradient / gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        images = (images + length * direction).clamp(0, 1)
    return images


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, required=True, help="parquet table of captioned images")
    path = parser.parse_args().images
    torch.set_num_threads(1)
    captioned = read_images(path, "heldout")
    pairs = captioned.style_pairs()[::8]
    glossy, flat = captioned.images[pairs[:, 0]], captioned.images[pairs[:, 1]]
    prompts = [captioned.labels[i] for i in pairs[:, 0].tolist()]
    rewards = {name: create(name) for pair in EVALUATORS.items() for name in pair}

    print(f"mean scores of {len(prompts)} images of unseen concepts")
    print(f"{'':16}", *(f"{name:>20}" for name in rewards))
    for name, images in {"glossy": glossy, "flat": flat, **degenerate(glossy)}.items():
        means = [score(reward, images, prompts).mean() for reward in rewards.values()]
        print(f"{name:16}", *(f"{mean:+20.2f}" for mean in means))

    print("\nflat images, moved along a reward's gradient in pixel space")
    start, prompts = flat[:16], prompts[:16]
    for name, evaluator in EVALUATORS.items():
        before = [score(rewards[n], start, prompts).mean() for n in (name, evaluator)]
        for steps in (2, 8):
            moved = ascend(rewards[name], start, prompts, steps)
            change = (moved - start).square().mean().sqrt() / GREY_LEVEL
            after = [score(rewards[n], moved, prompts).mean() for n in (name, evaluator)]
            gains = ", ".join(
                f"{n} {b:+.2f} -> {a:+.2f}" for n, b, a in zip((name, evaluator), before, after, strict=True)
            )
            print(f"  {steps} steps, {change:.1f} grey levels: {gains}")


if __name__ == "__main__":
    main()
