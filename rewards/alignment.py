"""Whether an image shows what its prompt says: image features, mapped into the space of caption embeddings.

Notation
    f      image features [1280]                  features.py
    e      MiniLM embedding of the prompt [384]   captions.py
    W, b   ridge regression from f to q           `head_weight`, `head_bias`
    m, P   mean of the training captions' e, and a projection that softens the directions all captions share
                                                  `caption_mean`, `caption_projection`

    score = cos(W f + b, q),    q = P (e - m)

Plain cosine similarity to e hardly tells prompts apart, because captions share most of their length; hence m and P.
`rewards.fitting.alignment` makes the weights.
"""

from pathlib import Path

from torch import Tensor, nn

from rewards import captions, features
from rewards.captions import CaptionEmbeddings
from rewards.features import FeatureSettings, ImageFeatures
from rewards.heads import WEIGHTS, load_head
from rewards.towers.checkpoint import sha256
from rewards.towers.prompts import PromptEmbeddings


class Alignment:
    """Cosine similarity of image and prompt, in [-1, 1]; around 0 for an image of something else.

    Args:
        device: where to compute.
        weights: file of a head trained on other images; None for the one that comes with the package.

    Raises:
        FileNotFoundError: no such weights.
        ImportError: the packages of the extra `emoji` are missing.
    """

    differentiable = True
    packages = "envs/emoji.txt"
    licence = "Apache-2.0 AND MIT"
    feature_settings = FeatureSettings(size=96, pooling="average")
    file_name = "alignment.safetensors"

    def __init__(self, *, device: str = "cpu", weights: Path | None = None) -> None:
        path = weights or WEIGHTS / self.file_name
        head = load_head(path, device)
        self.device = device
        self.weights_hash = sha256(path, features.weights_path(), captions.weights_path())
        self._weight, self._bias = head["head_weight"], head["head_bias"]
        self._caption_mean, self._caption_projection = head["caption_mean"], head["caption_projection"]
        self._features = ImageFeatures(self.feature_settings, device)
        self._embed = CaptionEmbeddings(device)
        self._targets = PromptEmbeddings(self._target)

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores, float32 [B], of images, float32 [B, 3, H, W] in [0, 1], for B prompts."""
        return (self._predicted(images) * self._targets(prompts)).sum(-1)

    def table(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores, float32 [B, P], of each of B images for each of P prompts."""
        return self._predicted(images) @ self._targets(prompts).T

    def _predicted(self, images: Tensor) -> Tensor:
        """(W f + b) / |W f + b|, [B, k]."""
        return nn.functional.normalize(self._features(images) @ self._weight + self._bias, dim=-1)

    def _target(self, prompt: str) -> Tensor:
        """q / |q|, [k]."""
        target = (self._embed([prompt])[0] - self._caption_mean) @ self._caption_projection
        return nn.functional.normalize(target, dim=-1)
