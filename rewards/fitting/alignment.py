"""Make the weights of `alignment`, or of its evaluator:

    P=sdo_ray/zoo/data/emoji.parquet W=rewards/weights
    python -m rewards.fitting.alignment --images $P --out $W/alignment.safetensors
    python -m rewards.fitting.alignment --heldout --images $P --out $W/heldout_alignment.safetensors

1. Caption space. With C the embeddings of all captions, m their mean and C - m = U S V^T, the projection keeps the
   NUM_DIRECTIONS strongest directions and shrinks the strong towards the weak: P = V diag(1 / sqrt(S / S_max)), half
   of the way to whitening.
2. Targets. An image's target is the mean of its captions' embeddings, projected and brought to length 1.
3. Head. Ridge regression from standardised features, of the images and of slightly changed ones, to the targets.
"""

import torch
from torch import Tensor

from rewards.alignment import Alignment
from rewards.captions import CaptionEmbeddings
from rewards.features import ImageFeatures
from rewards.fitting.common import arguments, extract, write_head
from rewards.fitting.images import Images, read_images
from rewards.fitting.variants import as_is, blurred, noisy, shifted
from rewards.heldout_alignment import HeldoutAlignment

RIDGE = 3000.0
"""Per variant, for features of variance 1."""
NUM_DIRECTIONS = 128
SAME = (as_is, shifted, blurred(0.8), blurred(1.5), noisy(0.05))


def fit(images: Images, features: ImageFeatures, embed: CaptionEmbeddings) -> dict[str, Tensor]:
    """The head, float64: head_weight [1280, k], head_bias [k], caption_mean [384], caption_projection [384, k]."""
    distinct = sorted({caption for captions in images.captions for caption in captions})
    embeddings = {caption: embed([caption])[0].double() for caption in distinct}
    mean, projection = caption_space(torch.stack(list(embeddings.values())))
    targets = torch.stack([torch.stack([embeddings[c] for c in captions]).mean(0) for captions in images.captions])
    targets = torch.nn.functional.normalize((targets - mean) @ projection, dim=1)

    inputs = torch.cat([extract(features, images.images, variant) for variant in SAME])
    weight, bias = ridge(inputs, targets.repeat(len(SAME), 1), RIDGE * len(SAME))
    return {"head_weight": weight, "head_bias": bias, "caption_mean": mean, "caption_projection": projection}


def caption_space(embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """m [384] and P [384, k] of embeddings [N, 384]."""
    mean = embeddings.mean(0)
    _, strength, directions = torch.linalg.svd(embeddings - mean, full_matrices=False)
    kept = slice(NUM_DIRECTIONS)
    return mean, directions[kept].T / (strength[kept] / strength[0]).sqrt()


def ridge(inputs: Tensor, targets: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """Weight [F, k] and bias [k] from inputs [N, F], which are standardised first, to targets [N, k]."""
    mean, scale = inputs.mean(0), inputs.std(0).clamp_min(1e-2)
    z = (inputs - mean) / scale
    weight = (
        torch.linalg.solve(z.T @ z + strength * torch.eye(z.shape[1], dtype=z.dtype), z.T @ targets) / scale[:, None]
    )
    return weight, -mean @ weight


@torch.no_grad()
def report(reward: Alignment, images: Images) -> None:
    """Print how the reward ranks images' own labels among the labels of up to 250 concepts that it has not seen."""
    concepts = sorted(set(images.labels))
    concepts = concepts[:: max(1, len(concepts) // 250)][:250]
    shown = [i for i, label in enumerate(images.labels) if label in set(concepts)]
    own = torch.tensor([concepts.index(images.labels[i]) for i in shown])
    print(f"{len(shown)} images of {len(concepts)} unseen concepts, chance rank {len(concepts) // 2}:")
    for name, variant in {"as they are": as_is, "blurred": blurred(1.0), "noisy": noisy(0.05)}.items():
        scores = torch.cat([reward.table(batch, concepts) for batch in variant(images.images[shown]).split(32)])
        right = scores.gather(1, own[:, None])
        by_label = (scores > right).sum(1).double() + 1
        by_image = (scores[:, own] > right.T).sum(0).double() + 1
        print(
            f"  {name}: median rank of the label {by_label.median():.0f}, first {(by_label == 1).double().mean():.1%}; "
            f"of the image {by_image.median():.0f} of {len(shown)}; "
            f"score of the own label {right.mean():+.3f}, of all {scores.mean():+.3f} ± {scores.std():.3f}"
        )


def main() -> None:
    """Fit, write, and report on the concepts that were skipped."""
    args = arguments(__doc__ or "")
    cls, seen, unseen = (HeldoutAlignment, "heldout", "train") if args.heldout else (Alignment, "train", "heldout")
    write_head(args.out, fit(read_images(args.images, seen), ImageFeatures(cls.feature_settings), CaptionEmbeddings()))
    report(cls(weights=args.out), read_images(args.images, unseen))


if __name__ == "__main__":
    main()
