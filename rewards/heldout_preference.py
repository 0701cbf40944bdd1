"""Evaluates what the preference reward teaches, by other concepts, pooling and resolution of the frozen features."""

from rewards.features import FeatureSettings
from rewards.preference import Preference


class HeldoutPreference(Preference):
    """`Preference`, learned from other concepts and on other features of them. Not to be trained on."""

    heldout = True
    feature_settings = FeatureSettings(size=128, pooling="max")
    file_name = "heldout_preference.safetensors"
