"""PickScore: which image people who used a web application picked. Kirstain et al., 2305.01569."""

from torch import Tensor

from rewards.towers.checkpoint import FromHub
from rewards.towers.clip import load_dual


class PickScore(FromHub):
    """exp(logit_scale) cos(image, prompt) in a CLIP H/14 trained on preferences; 20.5 to 21 for Stable Diffusion 1.5.

    Args:
        source: the CLIP model, hub id or local folder.
        tokenizer: hub id or local folder of its tokenizer; the model's own repository has none.
        scale: of the score. Others who train with it take 1/26.
        revision: of the model on the hub.
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
        source: str = "yuvalkirstain/PickScore_v1",
        tokenizer: str = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
        scale: float = 1.0,
        revision: str | None = None,
        dtype: str = "float32",
        device: str = "cpu",
    ) -> None:
        self.device = device
        self._clip = load_dual(source, revision, dtype, device, tokenizer)
        self._scale = scale * self._clip.model.logit_scale.exp().item()
        self.checkpoints = (self._clip.checkpoint,)

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores, [B], of images, [B, 3, H, W] in [0, 1], for B prompts."""
        return self._scale * self._clip.cosines(images, prompts)
