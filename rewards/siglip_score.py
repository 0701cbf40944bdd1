"""SigLIP: do image and prompt belong together. Zhai et al., 2303.15343."""

from torch import Tensor

from rewards.towers.checkpoint import FromHub
from rewards.towers.clip import load_dual


class SiglipScore(FromHub):
    """Logit of the probability that image and prompt belong together, exp(scale) cos(image, prompt) + bias.

    Args:
        source: SigLIP model, hub id or local folder.
        revision: of the hub.
        dtype: what the network computes in.
        device: where to compute.

    Raises:
        OSError: the model is not there, or has no safetensors.
        ValueError: it is no SigLIP model.
    """

    differentiable = True
    licence = "Apache-2.0"

    def __init__(
        self,
        *,
        source: str = "google/siglip-so400m-patch14-384",
        revision: str | None = None,
        dtype: str = "float32",
        device: str = "cpu",
    ) -> None:
        self.device = device
        self._tower = load_dual(source, revision, dtype, device)
        if not hasattr(self._tower.model, "logit_bias"):
            raise ValueError(f"{source} is no SigLIP model; clip_score takes CLIP models")
        self._scale = self._tower.model.logit_scale.exp().item()
        self._bias = self._tower.model.logit_bias.item()
        self.checkpoints = (self._tower.checkpoint,)

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores, [B], of images, [B, 3, H, W] in [0, 1], for B prompts."""
        return self._scale * self._tower.cosines(images, prompts) + self._bias
