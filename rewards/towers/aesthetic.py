"""What LAION's predictors and those after them have in common: linear layers without activations between them, on the
embedding of an image."""

from pathlib import Path

from torch import Tensor

from rewards.towers.affine import compose
from rewards.towers.checkpoint import FromHub, describe, read_tensors
from rewards.towers.loading import load_images_only


class AestheticHead(FromHub):
    """Base of such a reward, which says which layers its head has, and of what they are.

    Args:
        weights: file of the head.
        source: the image model that the head was trained on, hub id or local folder.
        revision: of that model on the hub.
        dtype: what the image model computes in; the head is in float32.
        device: where to compute.

    Raises:
        OSError: a file is not there.
        ValueError: the head or the model has other keys, or they do not fit each other.
    """

    differentiable = True
    layers: tuple[str, ...]
    """Prefixes of the head's keys, in the order of the layers."""
    called: str
    """What errors call the head."""

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
        self._head = compose(read_tensors(weights), self.layers, self.called)
        self._tower = load_images_only(source, revision, dtype, device)
        self.checkpoints = (describe(str(weights), weights), self._tower.checkpoint)

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores, [B], of images, [B, 3, H, W] in [0, 1]."""
        return self._head(self._tower.images(images))
