"""CLIPScore: does the image show its prompt. Hessel et al., 2104.08718, without its factor 2.5 and its cut at 0."""

from torch import Tensor

from rewards.towers.checkpoint import FromHub
from rewards.towers.clip import load_dual


class ClipScore(FromHub):
    """Cosine of image and prompt in CLIP, in [-1, 1]; 0.26 to 0.28 for good matches with CLIP L/14.

    Args:
        source: CLIP model, hub id or local folder.
        revision: of the hub.
        dtype: what the network computes in.
        device: where to compute.

    Raises:
        OSError: the model is not there, or has no safetensors.
        ValueError: it is no CLIP model.
    """

    differentiable = True
    licence = "MIT"

    def __init__(
        self,
        *,
        source: str = "openai/clip-vit-large-patch14",
        revision: str | None = None,
        dtype: str = "float32",
        device: str = "cpu",
    ) -> None:
        self.device = device
        self._clip = load_dual(source, revision, dtype, device)
        self.checkpoints = (self._clip.checkpoint,)

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores, [B], of images, [B, 3, H, W] in [0, 1], for B prompts."""
        return self._clip.cosines(images, prompts)
