"""Guidance at a kept step with the gradient of the prompt's branch alone: half the activations, half the backward pass.

Notation
    r_c    what the step's denoiser call c returned, [rows, ...]: both branches in one batch, or one of them
    o      what the pipeline made of them for the scheduler, such as r_neg + s (r_prompt - r_neg)
    d      weight of a row of r_c in o: do/dr_c, summed over the row
    p      the prompt's rows, computed once more with a graph

Which rows are the prompt's is read off o: those whose d has the sign of the largest |d|. With guidance above 1 a prompt
counts with s or 1 + s, and what it is guided away from with 1 - s or -s, in whatever order and calls a pipeline has
them. Every call is made without a graph, as always, so images stay as they are to the bit; the prompt's rows are then
made again, alone, and the gradient is theirs: that of the plan with all other rows held constant.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from sdo_ray.backprop.errors import TraceError
from sdo_ray.backprop.kept import KeptCall
from sdo_ray.backprop.linearised import with_gradient_of
from sdo_ray.backprop.pieces import NotRowByRow, check_same, rows_of, sample_of
from sdo_ray.backprop.surroundings import Surroundings
from sdo_ray.backprop.tensors import floating, map_leaves, own_lists

FIX = "choose guidance 'both'"


@dataclass
class _GuidedCall:
    forward: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    surroundings: Surroundings
    r: list[torch.Tensor]
    p: list[torch.Tensor] | None = None


class GuidedStep:
    """One kept step whose graph is that of the prompt's branch.

    Args:
        on_graph: told each output of the prompt's rows, [rows, ...], with its graph.
    """

    def __init__(self, on_graph: Callable[[torch.Tensor], None]) -> None:
        self._on_graph = on_graph
        self._calls: list[_GuidedCall] = []

    def call(self, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A denoiser call of the step, for now without a graph. Its arguments must stay as they are."""
        surroundings = Surroundings((args, kwargs))
        given_args, given_kwargs = own_lists((args, kwargs))
        with torch.no_grad():
            output = forward(*given_args, **given_kwargs)
        r = [x.requires_grad_() for x in floating(output)]
        self._calls.append(_GuidedCall(forward, args, kwargs, surroundings, r))
        return output

    def guided(self, o: torch.Tensor) -> torch.Tensor:
        """`o`, what the scheduler is given of the step's calls, with the graph of the prompt's rows.

        Raises:
            TraceError: see `prompt_rows`; a call's rows alone are not what they are beside the others.
        """
        r: list[torch.Tensor] = []
        u: list[torch.Tensor] = []
        for call, rows in zip(self._calls, prompt_rows([call.r for call in self._calls], o), strict=True):
            if not rows:
                continue
            if call.p is None:
                call.p = self._again(call, rows)
            for x, p in zip(call.r, call.p, strict=True):
                r.append(x)
                u.append(torch.cat([torch.zeros_like(x[: rows.start]), p, torch.zeros_like(x[rows.stop :])]))
        return with_gradient_of(o, r, u) if r else o

    def _again(self, call: _GuidedCall, rows: range) -> list[torch.Tensor]:
        batch = call.r[0].shape[0]
        args, kwargs = _cut((call.args, call.kwargs), rows, batch)
        # Autocast caches its casts of the weights; one made without a graph would take the gradient from them.
        torch.clear_autocast_cache()
        try:
            with torch.enable_grad(), call.surroundings.restored():
                p = list(floating(call.forward(*args, **kwargs)))
            check_same(p, [rows_of(x, rows, batch) for x in sample_of(call.r)])
        except (NotRowByRow, IndexError, RuntimeError, ValueError) as error:
            if isinstance(error, torch.OutOfMemoryError) or len(rows) == batch:
                raise
            raise _no_branch(f"a denoiser whose rows cannot be computed alone ({error})") from error
        for x in p:
            self._on_graph(x)
        return p


def prompt_alone(calls: Sequence[KeptCall], o: torch.Tensor) -> list[KeptCall]:
    """Kept calls without those rows that `o`, which is made of some of them, is guided away from.

    Raises:
        TraceError: see `prompt_rows`.
    """
    found = prompt_rows([list(floating(call.output)) for call in calls], o)
    return [
        call if rows is None else _part(call, rows)
        for call, rows in zip(calls, found, strict=True)
        if rows is None or rows
    ]


def prompt_rows(outputs: Sequence[Sequence[torch.Tensor]], o: torch.Tensor) -> list[range | None]:
    """Which rows of each call are the prompt's.

    Args:
        outputs: of each call, [rows, ...].
        o: what the scheduler is given.

    Returns:
        For each call its rows, none of a call for the other branch; None where `o` does not depend on the call.

    Raises:
        TraceError: they do not lie side by side, or differ between the outputs of a call.
    """
    r = [x for call in outputs for x in call]
    if not r or not o.requires_grad:
        return [None] * len(outputs)
    slopes = torch.autograd.grad(o, r, torch.ones_like(o), retain_graph=True, allow_unused=True)
    d = iter([None if slope is None else slope.double().flatten(1).sum(dim=1) for slope in slopes])
    weights = [[next(d) for _ in call] for call in outputs]
    every = [w for call in weights for w in call if w is not None]
    if not every:
        return [None] * len(outputs)
    largest = torch.cat(every)
    sign = largest[largest.abs().argmax()].sign()
    return [_rows([w * sign > 0 for w in call if w is not None]) for call in weights]


def _rows(chosen: Sequence[torch.Tensor]) -> range | None:
    if not chosen:
        return None
    places = chosen[0].nonzero().flatten().tolist()
    rows = range(places[0], places[-1] + 1) if places else range(0)
    if len(rows) != len(places) or any(not torch.equal(other, chosen[0]) for other in chosen[1:]):
        raise _no_branch("a denoiser call whose rows for the prompt do not lie side by side")
    return rows


def _part(call: KeptCall, rows: range) -> KeptCall:
    batch = next(floating(call.output)).shape[0]
    if len(rows) == batch:
        return call
    args, kwargs = _cut((call.args, call.kwargs), rows, batch)
    return replace(call, args=args, kwargs=kwargs, rows=rows)


def _cut(tree: Any, rows: range, batch: int) -> Any:
    return map_leaves(lambda leaf: rows_of(leaf, rows, batch) if isinstance(leaf, torch.Tensor) else leaf, tree)


def _no_branch(got: str) -> TraceError:
    return TraceError("guidance", got, "a prompt's branch that can be computed alone", FIX)
