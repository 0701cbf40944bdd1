"""One reward behind a Ray actor, with its own resources and environment.

    actor = ray.remote(RewardActor).options(num_cpus=1).remote("preference", {}, num_threads=1, device="cpu")
    scores, gradient, seconds = ray.get(actor.score.remote(images, prompts, True))

A name made with `@register` exists where its module was imported, so give the actor `import_path(name)`.

Torch is imported by the actor, and not by the process that starts and watches the actors of all rewards.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from ray.util.metrics import Histogram

from rewards.frames import Frames, OfFrames
from rewards.half import to_half
from rewards.modality import SAMPLE_RATE
from rewards.provenance import provenance
from rewards.registry import create, reward_class
from rewards.spec import RewardSpec, inspect_spec
from rewards.terms import Smoothing

LATENCIES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Bounds of the histogram that Prometheus sees, in seconds."""


def latency(reward: str) -> Histogram:
    """What Prometheus is told of an actor's calls.

    Args:
        reward: its key, or those of all that the actor computes, joined by "and".
    """
    about = "Seconds to score a batch, gradients included."
    return Histogram("sdo_reward_seconds", about, list(LATENCIES), ("reward",)).set_default_tags({"reward": reward})


class RewardActor:
    """Scores batches with one reward.

    Args:
        name: name or import path of the reward.
        options: its options.
        num_threads: torch threads of this process; a worker would otherwise take every core of the machine it shares.
        device: where the reward computes, given to it as its option `device` if it has one.
        smoothing: of its gradients; None: plain ones.
        frames: of the videos that it judges, a reward of images; None: it judges what it says.
        sampling_rate: of the sounds that it judges, in Hz, given to it as its option `sample_rate` if it has one.
        called: what its numbers are called, by Prometheus; None: as its name.
        offload: whether its weights are on the device only while it scores, see `rewards.offload`.

    Raises:
        RewardError: a reward or an option that cannot be.
    """

    def __init__(
        self,
        name: str,
        options: Mapping[str, Any],
        num_threads: int,
        device: str,
        smoothing: Smoothing | None = None,
        frames: Frames | None = None,
        sampling_rate: int | None = None,
        called: str | None = None,
        offload: bool = False,
    ) -> None:
        import torch

        from rewards.offload import on_device

        torch.set_num_threads(num_threads)
        self._name = name
        self._options = dict(options)
        self._smoothing = smoothing
        self._spec = inspect_spec(reward_class(name))
        known = {"device": device} | ({} if sampling_rate is None else {SAMPLE_RATE: sampling_rate})
        filled_in = {option: value for option, value in known.items() if option in self._spec.options}
        self._reward = create(name, **{**filled_in, **options})
        self._judge = self._reward if frames is None else OfFrames(self._reward, frames)
        self._on_device = on_device([self._reward], device, offload)
        self._latency = latency(called or name)

    def score(
        self, images: np.ndarray, prompts: list[str], want_gradient: bool, seeds: Sequence[int] = ()
    ) -> tuple[np.ndarray, np.ndarray | None, float]:
        """Scores of a batch.

        Args:
            images: samples, float16 or float32 [B, ...] of the shape that it judges. An array, because Ray hands arrays
                over without a copy on one node. float16 halves what travels and is finer than an image file's 8 bits.
            prompts: B prompts.
            want_gradient: whether to compute d score_b / d sample_b.
            seeds: B numbers, each of which fixes what is drawn for its image; needed for a smoothed gradient.

        Returns:
            Scores, float32 [B]; gradients, float32 [B, ...] (float16 would lose small ones), or None if not
            wanted or a black box; seconds it took.

        Raises:
            ValueError: samples or prompts of another shape.
        """
        import torch

        from rewards.scoring import score, score_with_gradient
        from rewards.smoothing import score_with_smoothed_gradient

        start = time.perf_counter()
        pixels = torch.tensor(images)  # a copy: what Ray hands over is read-only
        with self._on_device():
            if not want_gradient:
                scores, gradient = score(self._judge, pixels, prompts), None
            elif self._smoothing is None:
                scores, gradient = score_with_gradient(self._judge, pixels, prompts)
            else:
                scores, gradient = score_with_smoothed_gradient(self._judge, pixels, prompts, self._smoothing, seeds)
        seconds = time.perf_counter() - start
        self._latency.observe(seconds)
        return scores.numpy(), None if gradient is None else gradient.numpy(), seconds

    def score_together(
        self, prompts: list[list[str]], want_gradient: bool, seeds: list[list[int]], *images: np.ndarray
    ) -> tuple[Any, ...]:
        """Scores of several batches whose images have one size, in one call of the reward; see `score`.

        A reward of whole batches is given each by itself: which others came along must not be in its scores.

        Returns:
            For each batch its scores and its gradients or None; last the seconds it took. Where the images are float16,
            gradients are too: what `rewards.half.to_half` makes of them.
        """
        if self._spec.batchwise:
            parts = [
                self.score(*batch[:2], want_gradient, batch[2]) for batch in zip(images, prompts, seeds, strict=True)
            ]
            return (*((scores, gradient) for scores, gradient, _ in parts), sum(seconds for *_, seconds in parts))
        together = np.concatenate(images) if len(images) > 1 else images[0]
        scores, gradient, seconds = self.score(
            together, [p for part in prompts for p in part], want_gradient, [s for part in seeds for s in part]
        )
        ends = np.cumsum([len(part) for part in prompts])[:-1]
        gradients: list[Any] = [None] * len(prompts) if gradient is None else np.split(gradient, ends)
        if gradient is not None and together.dtype == np.float16:
            gradients = [to_half(part) for part in gradients]
        return (*zip(np.split(scores, ends), gradients, strict=True), seconds)

    def provenance(self) -> dict[str, Any]:
        """What exactly gave the scores, see `rewards.provenance`."""
        return provenance(self._name, self._reward, self._options, self._spec)

    def spec(self) -> RewardSpec:
        """What the reward is, once loaded; without its options, whose types may be of packages that others lack."""
        return replace(self._spec, options={})
