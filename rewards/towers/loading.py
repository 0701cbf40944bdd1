"""Image networks by hub id or folder, of whichever kind they are."""

from torch import Tensor
from transformers import Dinov2Model, Dinov2WithRegistersModel

from rewards.towers.checkpoint import describe_folder, find_folder, kind_of, load_pretrained
from rewards.towers.clip import load_clip
from rewards.towers.images import ImageTower
from rewards.towers.pixels import IMAGENET_MEAN, IMAGENET_STD, normalized, squared

_DINO = {"dinov2": Dinov2Model, "dinov2_with_registers": Dinov2WithRegistersModel}
_DINO_SIZE = 224
"""What DINOv2 looks at; its configuration has the larger size of its position embeddings, which it interpolates."""


def load_images_only(source: str, revision: str | None, dtype: str, device: str) -> ImageTower:
    """DINOv2 (Oquab et al., 2304.07193), or the image half of CLIP or SigLIP.

    Raises:
        OSError: it is not there, or has no safetensors.
        ValueError: it is another kind of model, or its keys are not those of its kind.
    """
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


def _as_dino(images: Tensor, size: int) -> Tensor:
    """The middle of an image, 7/8 of its shortest side, as DINOv2 takes it."""
    size = min(size, _DINO_SIZE)
    whole = size * 8 // 7
    edge = (whole - size) // 2
    middle = squared(images, whole)[..., edge : edge + size, edge : edge + size]
    return normalized(middle, IMAGENET_MEAN, IMAGENET_STD)
