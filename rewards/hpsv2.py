"""Human Preference Score v2 and v2.1: which image people prefer for a prompt. Wu et al., 2306.09341."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from accelerate import init_empty_weights
from torch import Tensor
from transformers import AutoTokenizer, CLIPConfig, CLIPModel

from rewards.towers.checkpoint import FromHub, describe, find_file, load_strict, precision, read_tensors
from rewards.towers.clip import VIT_H_14, DualTower
from rewards.towers.open_clip import from_open_clip
from rewards.towers.pixels import AS_HPS


class Hpsv2(FromHub):
    """Cosine of image and prompt in a CLIP H/14 trained on preferences; about 0.27 (v2.0) or 0.25 (v2.1).

    Args:
        version: of the weights; scores of the two cannot be compared.
        source: hub id, local folder, or the file of weights itself.
        tokenizer: hub id or local folder of CLIP's tokenizer.
        revision: of the weights on the hub.
        dtype: what the network computes in.
        device: where to compute.

    Raises:
        OSError: the weights are not there.
        ValueError: they have other keys or shapes.
    """

    differentiable = True
    licence = "Apache-2.0"
    architecture: ClassVar[Mapping[str, Any]] = VIT_H_14
    """Arguments of `CLIPConfig`."""

    def __init__(
        self,
        *,
        version: Literal["v2.0", "v2.1"],
        source: str = "xswu/HPSv2",
        tokenizer: str = "openai/clip-vit-large-patch14",
        revision: str | None = None,
        dtype: str = "float32",
        device: str = "cpu",
    ) -> None:
        self.device = device
        name = {"v2.0": "HPS_v2_compressed.pt", "v2.1": "HPS_v2.1_compressed.pt"}[version]
        path = find_file(source, name, revision)
        with init_empty_weights():
            model = CLIPModel(CLIPConfig(**self.architecture))
        load_strict(model, from_open_clip(read_tensors(path)), f"HPS {version}").to(device, precision(dtype))
        self._clip = DualTower(model, AutoTokenizer.from_pretrained(tokenizer), AS_HPS, describe(source, path))
        self.checkpoints = (self._clip.checkpoint,)

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores, [B], of images, [B, 3, H, W] in [0, 1], for B prompts."""
        return self._clip.cosines(images, prompts)
