"""How beautiful an image is, from 1 to 10: LAION's first predictor, one linear layer on CLIP."""

from rewards.towers.aesthetic import AestheticHead


class AestheticV1(AestheticHead):
    """Aesthetic score of LAION's predictor v1; 4.5 to 6 for Stable Diffusion 1.5. The prompts do not matter.

    Args:
        weights: file of the head, such as `sa_0_4_vit_l_14_linear.pth`, from
            github.com/LAION-AI/aesthetic-predictor.
        source: the image model that the head was trained on, hub id or local folder.
        revision: of that model on the hub.
        dtype: what the image model computes in; the head is in float32.
        device: where to compute.

    Raises:
        OSError: a file is not there.
        ValueError: the head or the model has other keys, or they do not fit each other.
    """

    licence = "MIT"
    layers = ("",)
    called = "LAION's aesthetic predictor v1"
