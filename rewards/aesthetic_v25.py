"""How beautiful an image is, from 1 to 10: aesthetic predictor v2.5 on SigLIP.

The weights are under AGPL-3.0, and are fetched by whoever uses them; this code is not theirs.
"""

from pathlib import Path

from torch import Tensor

from rewards.towers.affine import compose
from rewards.towers.checkpoint import FromHub, describe, read_tensors
from rewards.towers.loading import load_images_only


class AestheticV25(FromHub):
    """Aesthetic score of predictor v2.5; 5.5 and up is good. The prompts do not matter.

    Args:
        weights: file of the head, `aesthetic_predictor_v2_5.pth`, from
            github.com/discus0434/aesthetic-predictor-v2-5.
        source: the image model that the head was trained on, hub id or local folder.
        revision: of that model on the hub.
        dtype: what the image model computes in; the head is in float32.
        device: where to compute.

    Raises:
        OSError: a file is not there.
        ValueError: the head or the model has other keys, or they do not fit each other.
    """

    differentiable = True
    licence = "AGPL-3.0-only"

    def __init__(
        self,
        *,
        weights: Path,
        source: str = "google/siglip-so400m-patch14-384",
        revision: str | None = None,
        dtype: str = "float32",
        device: str = "cpu",
    ) -> None:
        self.device = device
        self._head = compose(
            read_tensors(weights),
            [f"scoring_head.{number}" for number in (0, 2, 4, 6, 8)],
            "the aesthetic predictor v2.5",
        )
        self._tower = load_images_only(source, revision, dtype, device)
        self.checkpoints = (describe(str(weights), weights), self._tower.checkpoint)

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores, [B], of images, [B, 3, H, W] in [0, 1]."""
        return self._head(self._tower.images(images))
