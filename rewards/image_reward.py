"""ImageReward: which image people rank higher for a prompt. Xu et al., 2304.05977."""

from torch import Tensor

from rewards.towers.affine import compose
from rewards.towers.blip import Blip, BlipTower
from rewards.towers.checkpoint import FromHub, describe, find_file, read_tensors

_MEAN, _STD = 0.16717362830052426, 1.0333394966054072
"""Of the scores of the authors' training images."""


class ImageReward(FromHub):
    """ImageReward, standardised as its authors do; about -0.15 to 0.19 for Stable Diffusion 1.5.

    Args:
        source: hub id, local folder, or the file `ImageReward.pt` itself.
        tokenizer: hub id or local folder of BERT's tokenizer.
        revision: of the weights on the hub.
        dtype: what the network computes in; its head is in float32.
        device: where to compute.

    Raises:
        OSError: the weights are not there.
        ValueError: they have other keys or shapes.
    """

    differentiable = True
    licence = "Apache-2.0"
    network: type[Blip] = Blip

    def __init__(
        self,
        *,
        source: str = "THUDM/ImageReward",
        tokenizer: str = "bert-base-uncased",
        revision: str | None = None,
        dtype: str = "float32",
        device: str = "cpu",
    ) -> None:
        self.device = device
        path = find_file(source, "ImageReward.pt", revision)
        tensors = read_tensors(path)
        head = {key: tensors.pop(key) for key in list(tensors) if key.startswith("mlp.")}
        self._head = compose(head, [f"mlp.layers.{number}" for number in (0, 2, 4, 6, 7)], "ImageReward's head")
        self._tower = BlipTower(tensors, tokenizer, 35, dtype, device, self.network)
        self.checkpoints = (describe(source, path),)

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores, [B], of images, [B, 3, H, W] in [0, 1], for B prompts."""
        return (self._head(self._tower(images, prompts)) - _MEAN) / _STD
