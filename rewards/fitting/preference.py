"""Make the weights of `preference`, or of its evaluator:

    P=sdo_ray/zoo/data/emoji.parquet W=rewards/weights
    python -m rewards.fitting.preference --images $P --out $W/preference.safetensors
    python -m rewards.fitting.preference --heldout --images $P --out $W/heldout_preference.safetensors

Pairs (preferred, other), each concept once in each kind:

    the glossy and the flat image    both as they are, or both changed in the same way, so that the head looks for
                                       what the changes leave and not for edges and grain
    the flat image and white paper   so that drawing nothing is no way up

With D the differences of standardised features of all pairs, the weights minimise

    mean softplus(-D w) + (RIDGE / 2) |w|^2,

a convex problem. The bias, which pairs say nothing about, puts 0 half way between the two styles.
"""

import torch
from torch import Tensor

from rewards.features import ImageFeatures
from rewards.fitting.common import arguments, extract, write_head
from rewards.fitting.images import Images, read_images
from rewards.fitting.variants import as_is, blurred, flipped, noisy, shifted
from rewards.heldout_preference import HeldoutPreference
from rewards.preference import Preference

RIDGE = 0.03
SAME = (as_is, flipped, shifted, blurred(0.8), blurred(1.5), noisy(0.05))


def fit(images: Images, features: ImageFeatures) -> dict[str, Tensor]:
    """The head, float64: `weight` [1280] and `bias` []."""
    glossy, flat = images.style_pairs().unbind(1)
    plain = extract(features, images.images, as_is)
    pairs = []
    for variant in SAME:
        changed = plain if variant is as_is else extract(features, images.images, variant)
        pairs.append(changed[glossy] - changed[flat])
    pairs.append(plain[flat] - extract(features, torch.ones_like(images.images[:1]), as_is))

    scale = plain.std(0).clamp_min(1e-2)
    weight = _bradley_terry(torch.cat(pairs) / scale) / scale
    half_way = (plain[glossy].mean(0) + plain[flat].mean(0)) / 2
    return {"weight": weight, "bias": -half_way @ weight}


def _bradley_terry(differences: Tensor) -> Tensor:
    """The minimum of the loss above for D, float64 [P, F]."""
    weight = torch.zeros(differences.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight], max_iter=500, tolerance_grad=1e-8, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = torch.nn.functional.softplus(-differences @ weight).mean() + RIDGE / 2 * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return weight.detach()


@torch.no_grad()
def report(reward: Preference, images: Images) -> None:
    """Print how the reward does on images of concepts that it has not seen."""
    glossy, flat = images.style_pairs().unbind(1)
    print(f"on {len(glossy)} unseen concepts:")
    for name, variant in {"as they are": as_is, "blurred": blurred(1.0), "noisy": noisy(0.05)}.items():
        scores = torch.cat([reward(batch, []) for batch in variant(images.images).split(32)])
        right = (scores[glossy] > scores[flat]).double().mean()
        means = f"glossy {scores[glossy].mean():+.2f}, flat {scores[flat].mean():+.2f}"
        print(f"  {name}: {right:.1%} of pairs right, {means}")


def main() -> None:
    """Fit, write, and report on the concepts that were skipped."""
    args = arguments(__doc__ or "")
    cls, seen, unseen = (HeldoutPreference, "heldout", "train") if args.heldout else (Preference, "train", "heldout")
    write_head(args.out, fit(read_images(args.images, seen), ImageFeatures(cls.feature_settings)))
    report(cls(weights=args.out), read_images(args.images, unseen))


if __name__ == "__main__":
    main()
