"""Which of two drawing styles people would pick: a Bradley-Terry model that prefers the glossy style to the flat one.

    P(a preferred to b) = sigmoid(score(a) - score(b)),    score(x) = <w, features(x)> + b

Bradley & Terry 1952; as a reward for images, ImageReward (2304.05977). `rewards.fitting.preference` makes the
weights.
"""

from pathlib import Path

from torch import Tensor

from rewards import features
from rewards.features import FeatureSettings, ImageFeatures
from rewards.heads import WEIGHTS, load_head
from rewards.towers.checkpoint import sha256


class Preference:
    """Logit of preference, about -3 for flat images, +3 for glossy ones, 0 half way. The prompts do not matter.

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
    file_name = "preference.safetensors"

    def __init__(self, *, device: str = "cpu", weights: Path | None = None) -> None:
        path = weights or WEIGHTS / self.file_name
        head = load_head(path, device)
        self.device = device
        self.weights_hash = sha256(path, features.weights_path())
        self._weight, self._bias = head["weight"], head["bias"]
        self._features = ImageFeatures(self.feature_settings, device)

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores, float32 [B], of images, float32 [B, 3, H, W] in [0, 1]."""
        return self._features(images) @ self._weight + self._bias
