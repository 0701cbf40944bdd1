"""Image networks by hub id or folder, of whichever kind they are."""

from typing import Protocol

from torch import Tensor
from transformers import Dinov2Model, Dinov2WithRegistersModel

from rewards.features import FeatureSettings, ImageFeatures, weights_path
from rewards.towers.checkpoint import Checkpoint, describe, describe_folder, find_folder, kind_of, load_pretrained
from rewards.towers.clip import load_clip, load_dual
from rewards.towers.images import ImageTower, unit
from rewards.towers.pixels import IMAGENET_MEAN, IMAGENET_STD, normalized, squared
from rewards.towers.sharing import is_shared, network, seen

_DINO = {"dinov2": Dinov2Model, "dinov2_with_registers": Dinov2WithRegistersModel}
_DINO_SIZE = 224
"""What DINOv2 looks at; its configuration has the larger size of its position embeddings, which it interpolates."""

EFFICIENTNET = "efficientnet-lite0"
"""Source of the small network that the embedded model's rewards rest on; no hub has to be asked."""


class UnitVectors(Protocol):
    """Images to unit vectors, see `ImageTower`."""

    checkpoint: Checkpoint

    def images(self, images: Tensor, /) -> Tensor:
        """Embeddings of length 1, [B, D], of images [B, 3, H, W] in [0, 1]."""
        ...


def load_images_only(source: str, revision: str | None, dtype: str, device: str) -> UnitVectors:
    """DINOv2 (Oquab et al., 2304.07193), the image half of CLIP or SigLIP, or `EFFICIENTNET`.

    Raises:
        ImportError: the packages of `EFFICIENTNET` are missing.
        OSError: it is not there, or has no safetensors.
        ValueError: it is another kind of model, or its keys are not those of its kind.
    """
    if source == EFFICIENTNET:
        return network(_EfficientNet, source, device)
    if is_shared() and kind_of(find_folder(source, revision)) in ("clip", "siglip"):
        return load_dual(source, revision, dtype, device)  # whole, as others of its rewards may read prompts
    return network(_load_images_only, source, revision, dtype, device)


def _load_images_only(source: str, revision: str | None, dtype: str, device: str) -> ImageTower:
    folder = find_folder(source, revision)
    checkpoint = describe_folder(source, folder)
    kind = kind_of(folder)
    if kind in _DINO:
        dino = load_pretrained(_DINO[kind], folder, dtype, device)
        return ImageTower(dino, lambda pixels: dino(pixels).pooler_output, _as_dino, checkpoint)
    if kind not in ("clip", "siglip"):
        raise ValueError(f"{source} is a model of kind {kind!r}; known are CLIP, SigLIP and DINOv2")
    model, prepare = load_clip(folder, dtype, "cpu")
    del model.text_model
    model.to(device)
    return ImageTower(model, lambda pixels: model.get_image_features(pixels).pooler_output, prepare, checkpoint)


class _EfficientNet:
    """Mean features at 96 pixels, as `Preference` has them."""

    def __init__(self, source: str, device: str) -> None:
        self._features = ImageFeatures(FeatureSettings(size=96), device)
        self.checkpoint = describe(source, weights_path())

    def images(self, images: Tensor) -> Tensor:
        return seen(self, images, lambda: unit(self._features(images)))


def _as_dino(images: Tensor, size: int) -> Tensor:
    """The middle of an image, 7/8 of its shortest side, as DINOv2 takes it."""
    size = min(size, _DINO_SIZE)
    whole = size * 8 // 7
    edge = (whole - size) // 2
    middle = squared(images, whole)[..., edge : edge + size, edge : edge + size]
    return normalized(middle, IMAGENET_MEAN, IMAGENET_STD)
