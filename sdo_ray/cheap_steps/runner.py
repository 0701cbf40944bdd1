"""Runs steps without a graph cheaply: on a copy of the denoiser, and at some, modules are not run but continued."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from enum import Enum, auto
from functools import partial
from types import MappingProxyType
from typing import Any

import torch

from sdo_ray.backprop.errors import TraceError
from sdo_ray.backprop.patches import replaced_call
from sdo_ray.backprop.tensors import with_type
from sdo_ray.cheap_steps.continuation import Continuation
from sdo_ray.cheap_steps.fast_copy import FastCopy
from sdo_ray.cheap_steps.guidance_rows import latents_of, prompts_half, with_half

Place = tuple[str, str]
"""A denoiser's component name, and the name of a module in it; "" is the denoiser itself."""


class _Mode(Enum):
    ASIDE = auto()
    COMPUTED = auto()
    GATED = auto()
    HELD = auto()
    KEPT = auto()


class _Trusted(Exception):
    """Ends a denoiser call whose first block is where it was continued to be."""


class CheapRunner:
    """A `StepRunner` that holds modules at all steps but some, and computes the others on a fast copy.

    Kept steps are computed by the denoiser itself; what its modules give there is known to later steps.

    Args:
        held: denoiser -> the modules that are held, "" for all of it.
        computed: N -> the steps at which everything is computed.
        order: see `Continuation`.
        tolerance: relative error of what a computed step was continued to be, above which nothing is held until it
            is smaller; None: the schedule alone decides.
        copies: denoiser -> what runs in its place; those that have none run themselves.
        gates: denoiser -> a module that is run at held steps too; where its continuation is further off than
            `tolerance`, which then says nothing else, all of the denoiser is. Confidence-gated Taylor (arXiv
            2508.02240). The denoiser itself is what is held then.
        guidance: only what guidance leads away from is held, see `guidance_rows`, of the denoiser itself.
    """

    def __init__(
        self,
        held: Mapping[str, list[str]],
        computed: Callable[[int], frozenset[int]],
        order: int,
        tolerance: float | None = None,
        copies: Mapping[str, FastCopy] = MappingProxyType({}),
        gates: Mapping[str, str] = MappingProxyType({}),
        guidance: bool = False,
    ) -> None:
        self.copies, self._gates, self._guidance = copies, gates, guidance
        self._held, self._schedule, self._order, self._tolerance = held, computed, order, tolerance
        self._known: dict[tuple[Place, int], Continuation] = {}
        self._begin(frozenset())

    @contextmanager
    def sampling(self, num_steps: int, denoisers: Mapping[str, torch.nn.Module]) -> Iterator[None]:
        """See `StepRunner`."""
        self._begin(self._schedule(num_steps), num_steps)
        self._open = True
        try:
            with ExitStack() as stack:
                for name, denoiser in denoisers.items():
                    run = [denoiser]
                    if name in self.copies:
                        self.copies[name].follow()
                        run.append(self.copies[name].module)
                    for module in filter(None, self._held.get(name, ())):
                        around = partial(self._module, (name, module))
                        for each in run:
                            stack.enter_context(replaced_call(each.get_submodule(module), around))
                    if name in self._gates:
                        around = partial(self._gate, (name, self._gates[name]))
                        for each in run:
                            stack.enter_context(replaced_call(each.get_submodule(self._gates[name]), around))
                yield
        finally:
            self._begin(frozenset())

    def __call__(
        self, step: int, name: str, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """See `StepRunner`."""
        self._enter(step)
        if name in self.copies and step < self.copies[name].first * self._num_steps:
            return self.copies[name].small(args, kwargs)  # nothing is held among these steps
        if name in self.copies:
            fast = self.copies[name]

            def forward(*args: Any, **kwargs: Any) -> Any:
                return fast(args, kwargs)

        return self._run(_Mode.COMPUTED if self._computes else _Mode.HELD, name, forward, args, kwargs)

    def exact(
        self, step: int, name: str, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """See `StepRunner`."""
        if not self._open:
            return forward(*args, **kwargs)
        self._enter(step)
        return self._run(_Mode.KEPT, name, forward, args, kwargs)

    def _begin(self, computed: frozenset[int], num_steps: int = 0) -> None:
        self._open, self._computed, self._num_steps = False, computed, num_steps
        self._known.clear()
        self._step, self._computes, self._mode = -1, True, _Mode.ASIDE
        self._made: dict[Place, int] = defaultdict(int)
        self._error = 0.0
        self._latents: torch.Tensor | None = None

    def _enter(self, step: int) -> None:
        if step == self._step:
            return
        trusted = self._tolerance is None or bool(self._gates) or self._error <= self._tolerance
        self._step, self._computes = step, step in self._computed or not trusted
        self._made.clear()
        if self._computes:
            self._error = 0.0

    def _run(
        self, mode: _Mode, name: str, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        before, self._mode = self._mode, mode
        try:
            if "" in self._held.get(name, ()):
                return self._module((name, ""), forward, args, kwargs)
            return forward(*args, **kwargs)
        finally:
            self._mode = before

    def _module(self, place: Place, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call of a module that is held, or its continuation."""
        if self._mode is _Mode.ASIDE:
            return forward(*args, **kwargs)
        known = self._of_call(place)
        fits = known.fits((args, kwargs))
        if self._mode is _Mode.HELD and fits and self._guidance:
            return self._prompts_computed(place, known, forward, args, kwargs)
        if self._mode is _Mode.HELD and fits and place[0] not in self._gates:
            return known.predict(self._step)
        try:
            if self._mode is _Mode.HELD and fits:
                self._mode = _Mode.GATED
            output = forward(*args, **kwargs)
        except _Trusted:
            return known.predict(self._step)
        if self._tolerance is not None and fits:
            self._error = max(self._error, known.error(self._step, output))
        self._observe(known, place, (args, kwargs), output)
        return output

    def _prompts_computed(
        self,
        place: Place,
        known: Continuation,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """A call of which the prompt's branch is computed and the other continued."""
        if (half := prompts_half(args, kwargs)) is not None:
            try:
                computed = forward(*half[0], **half[1])
            except (RuntimeError, ValueError, IndexError) as error:
                if isinstance(error, torch.OutOfMemoryError):
                    raise
                got = f"'guidance' with a {place[0]} whose rows cannot be computed alone ({error})"
                raise TraceError("sampling.cache", got, "one that can", "choose 'taylor'") from error
            return with_half(known.predict(self._step), computed)
        latents, before = latents_of(args, kwargs), self._latents
        if self._made[place] == 1:
            self._latents = latents
            if (place, 1) not in self._known:
                got = f"'guidance', and a call of the {place[0]} for no other branch than the prompt's"
                raise TraceError(
                    "sampling.cache", got, "a sampler with guidance", "choose 'taylor', or raise guidance_scale"
                )
        elif latents is not None and before is not None and torch.equal(latents, before):
            return known.predict(self._step)
        output = forward(*args, **kwargs)
        self._observe(known, place, (args, kwargs), output)
        return output

    def _gate(self, place: Place, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call of a module whose continuation says whether that of all can be trusted."""
        output = forward(*args, **kwargs)
        if self._mode is _Mode.ASIDE:
            return output
        known = self._of_call(place)
        if self._mode is _Mode.GATED and known.fits((args, kwargs)):
            assert self._tolerance is not None
            if known.error(self._step, output) <= self._tolerance:
                raise _Trusted
        self._observe(known, place, (args, kwargs), output)
        return output

    def _observe(self, known: Continuation, place: Place, arguments: Any, output: Any) -> None:
        if self._mode is _Mode.KEPT and place[1] and place[0] in self.copies:
            output = with_type(output, self.copies[place[0]].dtype)
        # A kept step may be computed for fewer rows than others, where rows of a group are the same.
        if self._mode is not _Mode.KEPT or known.is_empty or known.fits(arguments):
            known.observe(self._step, arguments, output)

    def _of_call(self, place: Place) -> Continuation:
        """What is known of this call of the module within its step."""
        call = self._made[place]
        self._made[place] += 1
        return self._known.setdefault((place, call), Continuation(self._order))
