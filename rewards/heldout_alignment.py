"""Evaluates what the alignment reward teaches, by other concepts, pooling and resolution of the frozen features."""

from rewards.alignment import Alignment
from rewards.features import FeatureSettings


class HeldoutAlignment(Alignment):
    """`Alignment`, learned from other concepts and on other features of them. Not to be trained on."""

    heldout = True
    feature_settings = FeatureSettings(size=128, pooling="max")
    file_name = "heldout_alignment.safetensors"
