"""What rewards have in common that look at image features of a network of the user's choice."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rewards.towers.checkpoint import FromHub, describe
from rewards.towers.loading import EFFICIENTNET, load_images_only
from rewards.towers.references import image_files, read_image


class OnFeatures(FromHub):
    """Base of such a reward.

    Args:
        source: DINOv2, CLIP or SigLIP, hub id or local folder; or `efficientnet-lite0`, of the extra `emoji`.
        revision: of the hub.
        dtype: what the network computes in.
        device: where to compute.

    Raises:
        OSError: the model is not there, or has no safetensors.
        ValueError: it is of another kind.
    """

    differentiable = True
    licence = "Apache-2.0"

    def __init__(
        self,
        *,
        source: str = "facebook/dinov2-base",
        revision: str | None = None,
        dtype: str = "float32",
        device: str = "cpu",
    ) -> None:
        self.device = device
        self.check_use((), source=source, dtype=dtype)
        self._tower = load_images_only(source, revision, dtype, device)
        self.checkpoints = (self._tower.checkpoint,)

    @classmethod
    def check_use(cls, prompts: Sequence[str], **options: Any) -> None:
        """Refuse precisions that a network does not have, and what `FromHub` refuses."""
        if options.get("source") != EFFICIENTNET:
            super().check_use(prompts, **options)
        elif options.get("dtype", "float32") != "float32":
            raise ValueError(f"option 'dtype' must be float32 with {EFFICIENTNET}, got {options['dtype']!r}")


class ToReferences(OnFeatures):
    """Base of a reward that compares with the features of reference images.

    Args:
        references: a file, or a folder of image files.
        source: DINOv2, CLIP or SigLIP, hub id or local folder; or `efficientnet-lite0`, of the extra `emoji`.
        revision: of the hub.
        dtype: what the network computes in.
        device: where to compute.

    Raises:
        OSError: the model is not there, or has no safetensors.
        ValueError: it is of another kind, or there are no images.
    """

    min_references = 1

    def __init__(
        self,
        *,
        references: Path,
        source: str = "facebook/dinov2-base",
        revision: str | None = None,
        dtype: str = "float32",
        device: str = "cpu",
    ) -> None:
        super().__init__(source=source, revision=revision, dtype=dtype, device=device)
        files = image_files(references)
        with torch.no_grad():
            self._references = torch.cat([self._tower.images(read_image(file).to(device)) for file in files])
        self.checkpoints = (self._tower.checkpoint, describe(str(references), *files))

    @classmethod
    def check_use(cls, prompts: Sequence[str], **options: Any) -> None:
        """Refuse references that are none or too few, and what `FromHub` refuses."""
        super().check_use(prompts, **options)
        if "references" in options and len(image_files(options["references"])) < cls.min_references:
            raise ValueError(f"option 'references': give {cls.min_references} images or more, as a folder")
