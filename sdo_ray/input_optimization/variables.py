"""What can be optimised of a row while the model is frozen, and how the pipeline is given it.

Notation
    v_b      the variable of row b, float32;  v_b0 where it started
    r_b      |v_b0|

    keep_norm     v <- r v / |v|: initial noise of d dimensions lies near the sphere of radius sqrt(d)
    max_change    |v - v_0| <= c r, by moving back along the line to v_0; with keep_norm along the great circle
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch

from sdo_ray.backprop import given_prompt_embeds, initial_latents, initial_prompt_embeds

LEAST_GUIDANCE = 1.01
"""Pipelines leave guidance out at 1 and below, and with it its gradient."""


class Variable(ABC):
    """One variable a row of a batch.

    Args:
        initial: [B, ...], where the rows start.
        keep_norm: see `OptimizationSettings`.
        max_change: see `OptimizationSettings`.
    """

    name: ClassVar[str]

    def __init__(self, initial: torch.Tensor, *, keep_norm: bool = False, max_change: float | None = None) -> None:
        self.initial = [v.detach().float().clone() for v in initial]
        self.values = [v.clone().requires_grad_() for v in self.initial]
        """A leaf each, so that a row without a gradient stays where it is, Adam's momentum or not."""
        self._keep_norm = keep_norm
        self._max_change = max_change

    @classmethod
    @abstractmethod
    def start(cls, pipeline: Any, pipeline_call: dict[str, Any]) -> torch.Tensor:
        """[B, ...], what `pipeline_call` starts from by itself."""

    @abstractmethod
    def given(self, pipeline: Any) -> Any:
        """Context manager: within it the next call of `pipeline`, with the keyword arguments that it yields added,
        uses the variables and their gradient."""

    @torch.no_grad()
    def project(self) -> None:
        """Bring the values back to where they may be; called after every step."""
        for value, initial in zip(self.values, self.initial, strict=True):
            value.copy_(self._nearest(value, initial))

    def _nearest(self, value: torch.Tensor, initial: torch.Tensor) -> torch.Tensor:
        radius = initial.norm()
        if self._keep_norm:
            value = value * (radius / value.norm())
        change = value - initial
        if self._max_change is None or change.norm() <= self._max_change * radius:
            return value
        if not self._keep_norm:
            return initial + change * (self._max_change * radius / change.norm())
        across = value - initial * ((value * initial).sum() / radius.square())
        angle = 2 * math.asin(self._max_change / 2)  # of the chord
        return initial * math.cos(angle) + across * (math.sin(angle) * radius / across.norm())


class Latents(Variable):
    """z_0, the initial noise, as the pipeline's argument `latents` has it."""

    name = "latents"

    @classmethod
    def start(cls, pipeline: Any, pipeline_call: dict[str, Any]) -> torch.Tensor:
        """The noise of the call's generators."""
        return initial_latents(pipeline, **pipeline_call)

    @contextmanager
    def given(self, pipeline: Any) -> Iterator[dict[str, Any]]:
        """By the call's own argument."""
        yield {"latents": torch.stack(self.values).to(pipeline.dtype)}


class PromptEmbeddings(Variable):
    """c, what the text encoder makes of the prompt; the embedding of the empty prompt stays."""

    name = "prompt_embeds"

    @classmethod
    def start(cls, pipeline: Any, pipeline_call: dict[str, Any]) -> torch.Tensor:
        """The embeddings of the call's prompts."""
        return initial_prompt_embeds(pipeline, **pipeline_call)

    @contextmanager
    def given(self, pipeline: Any) -> Iterator[dict[str, Any]]:
        """In place of what `encode_prompt` returns."""
        with given_prompt_embeds(pipeline, torch.stack(self.values).to(pipeline.dtype)):
            yield {}


class GuidanceScale(Variable):
    """The scale of classifier-free guidance, one number; pipelines take one a call, so a batch is one row."""

    name = "guidance_scale"

    @classmethod
    def start(cls, pipeline: Any, pipeline_call: dict[str, Any]) -> torch.Tensor:
        """The call's own, [1]."""
        return torch.tensor([float(pipeline_call["guidance_scale"])], device=pipeline.device)

    @contextmanager
    def given(self, pipeline: Any) -> Iterator[dict[str, Any]]:
        """By the call's own argument: pipelines calculate and compare with a 0-dimensional tensor as with a float."""
        (value,) = self.values
        yield {"guidance_scale": value}

    def _nearest(self, value: torch.Tensor, initial: torch.Tensor) -> torch.Tensor:
        return super()._nearest(value, initial).clamp(min=LEAST_GUIDANCE)


VARIABLES: dict[str, type[Variable]] = {kind.name: kind for kind in (Latents, PromptEmbeddings, GuidanceScale)}
