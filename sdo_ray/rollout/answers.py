"""What is made of the rewards' answers to one batch: some are learned from, some watched, some stay away."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rewards.scoring import RewardMistake
from rewards.terms import RewardTerm
from sdo_ray.rollout.attempts import one_line
from sdo_ray.rollout.objective import ImageGradients, Scores
from sdo_ray.rollout.replica import RewardFailed
from sdo_ray.rollout.reward_client import Answer
from sdo_ray.rollout.reward_settings import RewardSettings


class Answers:
    """The answers to one batch.

    Args:
        answers: reward key -> what waits for it.
        rewards: settings of all of them.
        say: tells people of one that stays away.
    """

    def __init__(
        self, answers: Mapping[str, Answer], rewards: Sequence[RewardSettings], say: Callable[[str], None]
    ) -> None:
        self._answers = answers
        self._rewards = rewards
        self._say = say

    def learned(self) -> tuple[list[RewardTerm], Scores, ImageGradients]:
        """Wait for the rewards with a weight.

        Returns:
            The terms that are there, with their scores and gradients; of those that may stay away, only the others.

        Raises:
            RewardFailed: one that must not, or all.
        """
        terms, scores, gradients, failed = [], {}, {}, None
        for reward in self._rewards:
            if not reward.weight:
                continue
            try:
                scores[reward.key], gradients[reward.key] = self._answers[reward.key]()
                terms.append(reward.term)
            except RewardFailed as error:
                if reward.when_absent == "stop":
                    raise
                failed = error
                self._say(f"{error.line}; this batch learns without it")
        if failed is not None and not terms:
            raise failed
        return terms, scores, gradients

    def watched(self, num_images: int) -> dict[str, Sequence[float | None]]:
        """Wait for the rewards with weight 0; None in place of scores that there are not.

        Args:
            num_images: of the batch.

        Raises:
            RewardFailed: one that is given up and must not be.
            RewardMistake: one that does not do what a reward has to.
        """
        found: dict[str, Sequence[float | None]] = {}
        for reward in self._rewards:
            if reward.weight:
                continue
            try:
                found[reward.key] = self._answers[reward.key]()[0].tolist()
            except RewardMistake:
                raise
            except Exception as error:
                given_up = isinstance(error, RewardFailed) and not error.prompts
                if given_up and reward.when_absent == "stop":
                    raise
                found[reward.key] = [None] * num_images
                self._say(f"{reward.key!r}, which is only watched, has no score of a batch: {one_line(error)}")
        return found
