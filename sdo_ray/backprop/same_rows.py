"""Rows that are the same are denoised once.

Rows of a group share prompt and latents until they part, in whatever pipeline: consecutive rows of each batch that the
denoiser is called with, also where guidance has put two batches into one. Every w-th row is computed, and what comes
out is repeated.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch

from sdo_ray.backprop.errors import TraceError
from sdo_ray.backprop.tensors import floating, leaves

TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-3}
"""How far rows that are the same may be apart, as a share of the largest entry: networks, text encoders too, sum in an
order that depends on the batch. Of other types 0.05."""


def once(
    call: Callable[[tuple[Any, ...], dict[str, Any]], Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    width: int,
    rows: int,
) -> Any:
    """What `call(args, kwargs)` returns, with runs of `width` rows computed once.

    Args:
        call: of the denoiser.
        args: of the call.
        kwargs: likewise.
        width: rows that are the same, one after the other.
        rows: those of the latents, a multiple of `width`.

    Raises:
        TraceError: the rows of a run differ; or no batch of the rows is among the arguments.
    """
    if width == 1:
        return call(args, kwargs)
    batch = _batch_of(args, kwargs, rows)
    few = _map_rows(lambda x: _one_of_each(x, width), (args, kwargs), batch)
    return _map_rows(lambda x: _repeated(x, width), call(*few), batch // width)


def check_once(
    denoiser: torch.nn.Module,
    forward: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    width: int,
    rows: int,
) -> None:
    """See that `once` gives what the whole batch would: made both ways, at a denoiser's first call of these shapes.

    Raises:
        TraceError: it does not.
    """
    shapes = (width, rows, *(tuple(x.shape) for x in leaves((args, kwargs)) if isinstance(x, torch.Tensor)))
    seen = _CHECKED.setdefault(denoiser, set())
    if width == 1 or shapes in seen:
        return
    with torch.no_grad():
        whole = forward(*args, **kwargs)
        try:
            shared = once(lambda a, k: forward(*a, **k), args, kwargs, width, rows)
        except (RuntimeError, ValueError, IndexError) as error:
            if isinstance(error, TraceError):
                raise
            raise _not_by_rows(f"fails on fewer rows ({error})") from error
    for x, y in zip(floating(whole), floating(shared), strict=True):
        if x.shape != y.shape or not _same(x, y):
            raise _not_by_rows("gives other rows when it is called with fewer")
    seen.add(shapes)


_CHECKED: WeakKeyDictionary[torch.nn.Module, set[tuple[Any, ...]]] = WeakKeyDictionary()
"""Denoiser -> shapes of calls for which `once` is known to be right."""


def _batch_of(args: tuple[Any, ...], kwargs: dict[str, Any], rows: int) -> int:
    """Rows of the denoiser's batch, a multiple of those of the latents: those of the first argument that has any."""
    for size in call_sizes(args, kwargs):
        if size % rows == 0:
            return size
    raise _not_by_rows(f"has no argument of {rows} rows")


def call_sizes(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[int]:
    """Sizes of the arguments of a denoiser's call that may be batches, in order: the first is what it denoises."""
    for value in (*args, *kwargs.values()):
        if size := len(value) if isinstance(value, list | tuple) else _rows_of(value):
            yield size


def _rows_of(value: Any) -> int:
    return len(value) if isinstance(value, torch.Tensor) and value.dim() > 1 and value.is_floating_point() else 0


def _map_rows(function: Callable[[Any], Any], tree: Any, batch: int) -> Any:
    """`tree` with `function` applied to tensors of `batch` rows, and to lists, but not tuples, of as many tensors."""
    if isinstance(tree, torch.Tensor):
        return function(tree) if tree.dim() and len(tree) == batch else tree
    if isinstance(tree, Mapping):
        fields = {key: _map_rows(function, value, batch) for key, value in tree.items()}
        return fields if type(tree) is dict else type(tree)(**fields)  # diffusers' outputs are mappings too
    if type(tree) is list and len(tree) == batch and all(isinstance(x, torch.Tensor) for x in tree):
        return function(tree)
    if type(tree) in (list, tuple):
        return type(tree)(_map_rows(function, value, batch) for value in tree)
    return tree


def _one_of_each(x: Any, width: int) -> Any:
    few = x[::width]
    if isinstance(x, torch.Tensor):
        same = _same(x, few.repeat_interleave(width, 0))
    else:
        same = all(_same(one, few[i // width]) for i, one in enumerate(x))
    if not same:
        raise _not_by_rows("is called with rows that differ within a group")
    return few


def _same(x: torch.Tensor, y: torch.Tensor) -> bool:
    if not x.is_floating_point():
        return torch.equal(x, y)
    return bool((x - y).abs().max() <= TOLERANCES.get(x.dtype, 0.05) * x.abs().max())


def _repeated(x: Any, width: int) -> Any:
    if isinstance(x, torch.Tensor):
        return x.repeat_interleave(width, 0)
    return type(x)(one for one in x for _ in range(width))


def _not_by_rows(what: str) -> TraceError:
    return TraceError(
        "groups",
        f"a denoiser that {what}",
        "one whose rows do not depend on one another, called with a batch of prompts",
        "use groups that share no prefix, or another pipeline",
    )
