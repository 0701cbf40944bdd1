"""The rewards of a dry batch, in its own process."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.nn.functional import interpolate

from rewards.registry import import_path
from rewards.service import RewardActor
from sdo_ray.config.align import AlignSettings
from sdo_ray.dry_batch.problems import problem
from sdo_ray.media.modality import made_by
from sdo_ray.prompts.inputs import argument_of, texts_of
from sdo_ray.rollout.objective import ImageGradients, Scores
from sdo_ray.rollout.reward_settings import RewardActorSettings
from sdo_ray.settings import SettingsError


class DryRewards:
    """A `RewardFunction` of the run's rewards, which asks its evaluators too.

    Rewards with an environment or a GPU of their own cannot be made here: their scores are 0 and their gradients noise.

    Args:
        settings: of the run.
        say: given the setting whose reward comes next.

    Raises:
        SettingsError: a reward failed; of its place in the settings.
    """

    def __init__(self, settings: AlignSettings, say: Callable[[str], None]) -> None:
        self.asked, self.finite = False, True
        """Whether it was asked, and whether what it was given last was finite."""
        self.flat = list[str]()
        """The settings of rewards that are learned from, and whose gradient was 0 on all images."""
        self._terms, self._evaluators = settings.rewards.terms, settings.evaluation.evaluators
        options = settings.sampling.options
        self._size = [side for name in ("height", "width") if isinstance(side := options.get(name), int)]
        self._rate = made_by(settings.model.reference).sampling_rate
        self._inputs = settings.columns
        self._say = say

    def __call__(
        self, images: torch.Tensor, prompts: Sequence[str], seeds: Sequence[int] = ()
    ) -> tuple[Scores, ImageGradients]:
        """See `RewardFunction`; images of the run's size, where its settings say it, are made of what is given."""
        self.asked, self.finite, self.flat = True, bool(images.isfinite().all()), []
        scores, gradients = {}, {}
        for number, term in enumerate(self._terms):
            self._say(place := f"rewards.terms.{number}")
            scores[term.key], gradients[term.key] = self._ask(place, term, images, prompts, term.weight != 0, seeds)
            if (gradient := gradients[term.key]) is not None and not gradient.any():
                self.flat.append(place)
        for number, evaluator in enumerate(self._evaluators):
            self._say(place := f"evaluation.evaluators.{number}")
            self._ask(place, evaluator, images, prompts, False, seeds)
        return scores, gradients

    def _ask(
        self,
        setting: str,
        reward: RewardActorSettings,
        images: torch.Tensor,
        prompts: Sequence[str],
        learned: bool,
        seeds: Sequence[int],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        if reward.runtime_env or reward.num_gpus:
            return torch.zeros(len(images)), torch.randn_like(images) if learned else None
        try:
            actor = RewardActor(
                import_path(reward.name), reward.options, 1, "cpu", reward.smoothing, reward.seen_frames, self._rate
            )
            seen = interpolate(images, self._size) if len(self._size) == 2 and images.ndim == 4 else images
            given = texts_of(prompts, argument_of(reward.text, self._inputs))
            scores, gradient, _ = actor.score(seen.numpy(), given, learned, seeds)
        except Exception as error:
            got = f"reward {reward.name!r} failed on a first tiny batch"
            raise SettingsError(problem(setting, got, error)) from None
        if gradient is None:
            return torch.from_numpy(scores), None
        v = torch.from_numpy(gradient)
        return torch.from_numpy(scores), v if v.shape == images.shape else interpolate(v, images.shape[-2:])
