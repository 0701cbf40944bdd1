"""How beautiful an image is, from 1 to 10: aesthetic predictor v2.5 on SigLIP.

The weights are under AGPL-3.0, and are fetched by whoever uses them; this code is not theirs.
"""

from pathlib import Path

from rewards.towers.aesthetic import AestheticHead


class AestheticV25(AestheticHead):
    """Aesthetic score of predictor v2.5; 5.5 and up is good. The prompts do not matter.

    Args:
        weights: file of the head, `aesthetic_predictor_v2_5.pth`, from
            github.com/discus0434/aesthetic-predictor-v2-5.
        source: the image model that the head was trained on, hub id or local folder.
        revision: of that model on the hub.
        dtype: what the image model computes in; the head is in float32.
        device: where to compute.

    Raises:
        OSError: a file is not there.
        ValueError: the head or the model has other keys, or they do not fit each other.
    """

    licence = "AGPL-3.0-only"
    layers = ("scoring_head.0", "scoring_head.2", "scoring_head.4", "scoring_head.6", "scoring_head.8")
    called = "the aesthetic predictor v2.5"

    def __init__(
        self,
        *,
        weights: Path,
        source: str = "google/siglip-so400m-patch14-384",
        revision: str | None = None,
        dtype: str = "float32",
        device: str = "cpu",
    ) -> None:
        super().__init__(weights=weights, source=source, revision=revision, dtype=dtype, device=device)
