"""Networks that make vectors of images."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from rewards.towers.checkpoint import Checkpoint
from rewards.towers.pixels import Preparation
from rewards.towers.sharing import seen


class ImageTower:
    """Images to unit vectors.

    Args:
        model: a frozen model of transformers.
        embed: pixels as it takes them -> embeddings [B, D].
        prepare: images as it takes them.
        checkpoint: what it was read from.
    """

    def __init__(
        self, model: Any, embed: Callable[[Tensor], Tensor], prepare: Preparation, checkpoint: Checkpoint
    ) -> None:
        self.model, self.checkpoint = model, checkpoint
        self._embed, self._prepare = embed, prepare

    def images(self, images: Tensor) -> Tensor:
        """Embeddings of length 1, [B, D], of images [B, 3, H, W] in [0, 1]; float32, or float64 for a model in it."""
        return seen(self, images, lambda: unit(self._embed(self.pixels(images))))

    def pixels(self, images: Tensor) -> Tensor:
        """Images as the model takes them, [B, 3, S, S]."""
        config = getattr(self.model.config, "vision_config", self.model.config)
        return self._prepare(images, config.image_size).to(self.model.dtype)


def unit(x: Tensor) -> Tensor:
    """x / |x| along the last dimension; float16 and bfloat16 become float32."""
    return nn.functional.normalize(x if x.element_size() > 4 else x.float(), dim=-1)
