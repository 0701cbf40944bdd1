"""Rewards that judge images, applied to videos frame by frame. Imports no torch before there are frames.

Notation
    x_f, R(x_f)    frame f of a video of F frames, and an image reward's score of it
    S              the frames that are looked at: the first, all, or n in the middle of n equal parts of the video

    score = mean over f in S of R(x_f),  or the minimum, whose gradient is that of the worst frame alone
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

    from rewards.registry import Reward

Take = Literal["first", "all"] | int
Combine = Literal["mean", "minimum"]


@dataclass(frozen=True)
class Frames:
    """Which frames an image reward looks at, and how their scores become the video's."""

    take: Take = "all"
    """"first", "all", or how many evenly spaced ones; all of a video that has fewer."""

    combine: Combine = "mean"
    """What is made of their scores."""

    def __post_init__(self) -> None:
        if isinstance(self.take, int) and self.take < 1:
            raise ValueError(f"frames takes first, all or a number from 1 on, got {self.take}")

    @property
    def are_some(self) -> bool:
        """Whether a video may have others."""
        return self.take != "all"

    def places(self, num_frames: int) -> Sequence[int]:
        """S, of a video of so many frames."""
        if self.take == "first":
            return [0]
        if self.take == "all" or self.take >= num_frames:
            return range(num_frames)
        return [(2 * i + 1) * num_frames // (2 * self.take) for i in range(self.take)]


class OfFrames:
    """An image reward as one that judges videos, [B, F, 3, H, W].

    A frame without a score leaves its video without one. To a reward of whole batches, the frames of one place in all
    videos are a batch.

    Args:
        reward: judges images.
        frames: which of them, and how.
    """

    modality = "video"

    def __init__(self, reward: "Reward", frames: Frames) -> None:
        self._reward = reward
        self._frames = frames
        self.differentiable = reward.differentiable
        if (device := getattr(reward, "device", None)) is not None:
            self.device = device

    def __call__(self, videos: "Tensor", prompts: list[str]) -> "Tensor":
        """Scores, [B]."""
        import torch

        places = self._frames.places(videos.shape[1])
        scores = torch.stack([self._reward(videos[:, f], prompts) for f in places])
        return scores.mean(0) if self._frames.combine == "mean" else scores.amin(0)
