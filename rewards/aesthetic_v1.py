"""How beautiful an image is, from 1 to 10: LAION's first predictor, one linear layer on CLIP."""

from pathlib import Path

from torch import Tensor

from rewards.towers.affine import compose
from rewards.towers.checkpoint import FromHub, describe, read_tensors
from rewards.towers.loading import load_images_only


class AestheticV1(FromHub):
    """Aesthetic score of LAION's predictor v1; 4.5 to 6 for Stable Diffusion 1.5. The prompts do not matter.

    Args:
        weights: file of the head, such as `sa_0_4_vit_l_14_linear.pth`, from
            github.com/LAION-AI/aesthetic-predictor.
        source: the image model that the head was trained on, hub id or local folder.
        revision: of that model on the hub.
        dtype: what the image model computes in; the head is in float32.
        device: where to compute.

    Raises:
        OSError: a file is not there.
        ValueError: the head or the model has other keys, or they do not fit each other.
    """

    differentiable = True
    licence = "MIT"

    def __init__(
        self,
        *,
        weights: Path,
        source: str = "openai/clip-vit-large-patch14",
        revision: str | None = None,
        dtype: str = "float32",
        device: str = "cpu",
    ) -> None:
        self.device = device
        self._head = compose(read_tensors(weights), [""], "LAION's aesthetic predictor v1")
        self._tower = load_images_only(source, revision, dtype, device)
        self.checkpoints = (describe(str(weights), weights), self._tower.checkpoint)

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores, [B], of images, [B, 3, H, W] in [0, 1]."""
        return self._head(self._tower.images(images))
