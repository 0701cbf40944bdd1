"""The backward pass of a network call that is made again for it, in pieces of its batch.

Notation
    x    the call's tensors, of which those with a row for each of the batch are cut;  o  its outputs, [rows, ...]
    u    a cotangent at o;  theta  parameters

    (do/dtheta)^T u = sum over pieces,  (do/dx)^T u = the pieces' side by side

for a network whose rows do not know of one another, as diffusers' do not. Where it is not so, it is noticed: a piece
must compute what the whole call computed for its rows, or else the call is made again as a whole. The activations of
one piece are held at a time.

(do/dx)^T 0 = 0: a piece at whose outputs u is zero is not made again. So of a video whose reward looks at some frames,
only these are decoded again, where the decoder makes frames by themselves.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch

from sdo_ray.backprop.surroundings import Surroundings, rows_of_generators
from sdo_ray.backprop.tensors import floating, map_floating, map_leaves

_log = logging.getLogger(__name__)

_SAMPLED = 1024
"""At most so many values of each row are compared."""


@dataclass
class Halvings:
    """How often a piece did not fit and was cut in two."""

    count: int = 0


_counting: ContextVar[Halvings | None] = ContextVar("halvings", default=None)


@contextmanager
def counted_halvings() -> Iterator[Halvings]:
    """Count those of the backward passes that this thread makes in the block."""
    halvings = Halvings()
    token = _counting.set(halvings)
    try:
        yield halvings
    finally:
        _counting.reset(token)


@dataclass(frozen=True)
class Call:
    """A network call as it was made, with all that making it again needs."""

    forward: Callable[..., Any]
    args: tuple[Any, ...]
    """Its tensors must stay as they are."""
    kwargs: dict[str, Any]
    surroundings: Surroundings
    """Of the call, taken down before it."""
    sampled: list[torch.Tensor]
    """`sample_of` what it returned."""
    part: bool = False
    """Whether it is some rows of the call that was made: then the whole of it must be what these were, too."""


@dataclass
class Gradients:
    """What the backward pass of a call gives."""

    parameters: list[torch.Tensor | None]
    """One for each of the parameters asked for; None where there is no path."""
    inputs: list[torch.Tensor | None]
    """One for each of `inputs_of` the arguments; None where none was asked for, or there is no path."""


def inputs_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
    """The floating-point tensors among a call's arguments, in plain lists, tuples and dicts too."""
    found: list[torch.Tensor] = []

    def take(x: torch.Tensor) -> torch.Tensor:
        found.append(x)
        return x

    map_floating(take, (args, kwargs))
    return found


def has_rows(x: torch.Tensor, batch: int) -> bool:
    """Whether a tensor of a call has a row for each of its batch."""
    return bool(x.dim()) and x.shape[0] == batch


def rows_of(x: torch.Tensor, rows: range, batch: int) -> torch.Tensor:
    """Those rows of a tensor that has one for each of the batch; another as it is."""
    return x[rows.start : rows.stop] if has_rows(x, batch) else x


def sample_of(output: Any) -> list[torch.Tensor]:
    """Some values of each row of each floating-point tensor in `output`, by which a call made again is known."""
    return [_sample(o) for o in floating(output)]


def gradients_of(
    call: Call,
    cotangents: Sequence[torch.Tensor],
    parameters: Sequence[torch.Tensor],
    wanted: Sequence[bool],
    rows: int,
) -> Gradients:
    """Make the call again in pieces of its batch, and take the cotangents back through each.

    Where a piece does not fit the device's memory, it and those after it are made of half as many rows.

    Args:
        call: what to make again.
        cotangents: u, one for each floating-point output.
        parameters: whose gradients are wanted.
        wanted: for each of `inputs_of` the call, whether its gradient is.
        rows: of the batch in a piece, to begin with.

    Raises:
        torch.OutOfMemoryError: a piece of one row does not fit, or the whole of a call that cannot be cut.
        NotRowByRow: a part of a call that cannot be cut.
    """
    backward = _Backward(call, cotangents, parameters, wanted)
    try:
        return backward.in_pieces(rows)
    except NotRowByRow as error:
        if call.part:
            raise
        _log.info("%s; its backward pass is made as a whole", error)
    return backward.piece(0, backward.batch)


class NotRowByRow(Exception):
    """A piece of a call is not what the whole call has in its rows."""


class _Backward:
    """The arguments of `gradients_of`."""

    def __init__(
        self,
        call: Call,
        cotangents: Sequence[torch.Tensor],
        parameters: Sequence[torch.Tensor],
        wanted: Sequence[bool],
    ) -> None:
        self._call, self._cotangents = call, cotangents
        self._parameters, self._wanted = parameters, wanted
        sizes = {u.shape[0] if u.dim() else 1 for u in cotangents}
        self.batch = sizes.pop() if len(sizes) == 1 else 1

    def in_pieces(self, rows: int) -> Gradients:
        """In pieces of so many rows, or fewer."""
        inputs = inputs_of(self._call.args, self._call.kwargs)
        if not self._arrives(0, self.batch):
            zeros = [torch.zeros_like(x) if asked else None for x, asked in zip(inputs, self._wanted, strict=True)]
            return Gradients([None] * len(self._parameters), zeros)
        cut = [self._is_cut(x) for x in inputs]
        total = Gradients([None] * len(self._parameters), [None] * len(inputs))
        start = 0
        while start < self.batch:
            stop = min(start + rows, self.batch)
            if not self._arrives(start, stop):
                start = stop
                continue
            try:
                found = self.piece(start, stop)
            except torch.OutOfMemoryError:
                if stop - start == 1:
                    raise
                found = None
            if found is None:  # by here the failed attempt's frames are gone, and with them what they held
                rows = _halved(stop - start)
                continue
            total.parameters = [_sum(*both) for both in zip(total.parameters, found.parameters, strict=True)]
            for i, g in enumerate(found.inputs):
                if g is not None and cut[i]:
                    whole = total.inputs[i]
                    total.inputs[i] = whole = torch.zeros_like(inputs[i]) if whole is None else whole
                    whole[start:stop] = g
                else:
                    total.inputs[i] = _sum(total.inputs[i], g)
            start = stop
        return total

    def piece(self, start: int, stop: int) -> Gradients:
        """Of the rows start .. stop - 1."""
        whole = stop - start == self.batch
        asked, inputs = iter(self._wanted), list[torch.Tensor]()

        def cut(leaf: Any) -> Any:
            if not isinstance(leaf, torch.Tensor):
                return leaf
            leaf = self._rows(leaf.detach(), start, stop)
            if leaf.is_floating_point():
                inputs.append(leaf.requires_grad_() if next(asked) else leaf)
            return leaf

        surroundings = self._call.surroundings
        arguments = surroundings.with_generators((self._call.args, self._call.kwargs))
        args, kwargs = map_leaves(cut, rows_of_generators(arguments, start, stop, self.batch))
        with torch.enable_grad(), surroundings.restored():
            try:
                outputs = list(floating(self._call.forward(*args, **kwargs)))
            except torch.OutOfMemoryError:
                raise
            except (RuntimeError, ValueError, IndexError) as error:
                if whole and not self._call.part:
                    raise
                raise NotRowByRow(f"a call cannot be made in pieces of its batch ({error})") from None
        if not whole or self._call.part:
            check_same(outputs, [self._rows(values, start, stop) for values in self._call.sampled])
        roots = [
            (o, self._rows(u, start, stop).to(o.device, o.dtype))
            for o, u in zip(outputs, self._cotangents, strict=True)
            if o.requires_grad
        ]
        leaves = [*self._parameters, *(x for x in inputs if x.requires_grad)]
        if not roots or not leaves:
            return Gradients([None] * len(self._parameters), [None] * len(inputs))
        found = torch.autograd.grad([o for o, _ in roots], leaves, [u for _, u in roots], allow_unused=True)
        of_inputs = iter(found[len(self._parameters) :])
        return Gradients(
            list(found[: len(self._parameters)]), [next(of_inputs) if x.requires_grad else None for x in inputs]
        )

    def _arrives(self, start: int, stop: int) -> bool:
        """Whether there is a gradient at the outputs of the rows start .. stop - 1."""
        return any(bool(self._rows(u, start, stop).any()) for u in self._cotangents)

    def _rows(self, x: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        return rows_of(x, range(start, stop), self.batch)

    def _is_cut(self, x: torch.Tensor) -> bool:
        return has_rows(x, self.batch)


def _halved(rows: int) -> int:
    half = -(-rows // 2)
    if (halvings := _counting.get()) is not None:
        halvings.count += 1
    _log.warning("out of memory in a backward pass of %d rows; it goes on with %d at a time", rows, half)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return half


def _sum(a: torch.Tensor | None, b: torch.Tensor | None) -> torch.Tensor | None:
    return a + b if a is not None and b is not None else a if b is None else b


def _sample(o: torch.Tensor) -> torch.Tensor:
    if not o.dim() or not o.numel():
        return o.detach().reshape(-1).clone()
    flat = o.detach().reshape(o.shape[0], -1)
    return flat[:, :: -(-flat.shape[1] // _SAMPLED)].clone()


def check_same(outputs: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> None:
    """Whether what was made again is what was made; a batch of another size may be summed in another order, no more.

    Args:
        outputs: [rows, ...].
        expected: `sample_of` what they should be.

    Raises:
        NotRowByRow: it is not.
    """
    for o, values in zip(outputs, expected, strict=True):
        got = _sample(o)
        tolerance = 1e-3 if o.dtype in (torch.float32, torch.float64) else 5e-2
        if got.shape != values.shape or not (got - values).float().norm() <= tolerance * values.float().norm():
            raise NotRowByRow("a piece of a call differs from the call")
