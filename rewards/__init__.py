"""Rewards: scores for images, with their gradients where there are any.

A reward is a class. Its keyword arguments are its settings, and calling it with images and prompts gives scores::

    from rewards import create

    reward = create("preference")
    scores = reward(images, prompts)  # float32 [B, 3, H, W] in [0, 1], B prompts -> float32 [B], higher is better

Nothing here needs Ray, except `rewards.service`, which serves one reward from an actor. Importing this package
imports no torch.
"""

from rewards.registry import Reward, available, check, create, import_path, register, spec_of
from rewards.spec import RewardSpec

__all__ = ["Reward", "RewardSpec", "available", "check", "create", "import_path", "register", "spec_of"]
