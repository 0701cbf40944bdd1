"""How beautiful an image is, from 1 to 10: LAION's improved predictor on CLIP L/14.

Its five layers have no activations between them, so they are one vector; the variant with ReLU has other keys.
"""

from rewards.towers.aesthetic import AestheticHead


class AestheticV2(AestheticHead):
    """Aesthetic score of LAION's predictor v2; 5.2 to 5.5 for Stable Diffusion 1.5. The prompts do not matter.

    Args:
        weights: file of the head, `sac+logos+ava1-l14-linearMSE.pth`, from
            github.com/christophschuhmann/improved-aesthetic-predictor.
        source: the image model that the head was trained on, hub id or local folder.
        revision: of that model on the hub.
        dtype: what the image model computes in; the head is in float32.
        device: where to compute.

    Raises:
        OSError: a file is not there.
        ValueError: the head or the model has other keys, or they do not fit each other.
    """

    licence = "Apache-2.0"
    layers = ("layers.0", "layers.2", "layers.4", "layers.6", "layers.7")
    called = "LAION's aesthetic predictor v2"
