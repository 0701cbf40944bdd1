"""What a network gave at earlier steps, continued to a step at which it is not run.

Notation
    i_0 > i_1 > ...  the last steps at which it was run;  y_0, y_1, ...  what it gave there
    p                order, 0: the last output itself

The polynomial of degree p through the last p + 1 outputs, as a function of the step's number:

    y(i) = sum_j y_j prod_{m != j} (i - i_m) / (i_j - i_m)          (Lagrange)

With p = 0 and a linear scheduler two steps of one output are one step of the coarser schedule; p = 1 makes a two-step
Adams-Bashforth method of it. Published as TaylorSeer (arXiv 2503.06923), which writes it with finite differences.
"""

import math
from collections import deque
from collections.abc import Sequence
from typing import Any

import torch

from sdo_ray.backprop.tensors import floating, leaves, rebuilt


def lagrange_weights(steps: Sequence[int], step: int) -> list[float]:
    """Weights of outputs at `steps`, all different, in the polynomial through them at `step`; their sum is 1."""
    weights = []
    for j, own in enumerate(steps):
        weight = 1.0
        for m, other in enumerate(steps):
            if m != j:
                weight *= (step - other) / (own - other)
        weights.append(weight)
    return weights


class Continuation:
    """The outputs of one network call that is made at every step, and what they say about the next.

    Args:
        order: p, 0 or more; fewer outputs than p + 1 are continued by as many as there are.
    """

    def __init__(self, order: int) -> None:
        self._known: deque[tuple[int, list[torch.Tensor]]] = deque(maxlen=order + 1)
        self._shapes: list[torch.Size] = []
        self._form: Any = None

    def observe(self, step: int, arguments: Any, output: Any) -> None:
        """Remember what the call gave at a step later than those before.

        Args:
            step: its number.
            arguments: of the call; of other shapes than before, it is another call, and all earlier is forgotten.
            output: tensors, in lists, tuples, mappings or by themselves. Copies of them are kept, without a graph.
        """
        if (shapes := shapes_of(arguments)) != self._shapes:
            self._known.clear()
            self._shapes = shapes
        values = [x.detach().clone() for x in floating(output)]
        if self._known and shapes_of(self._known[-1][1]) != shapes_of(values):
            self._known.clear()
        self._form = rebuilt(output, iter(values))
        self._known.append((step, values))

    @property
    def is_empty(self) -> bool:
        """Whether nothing is known."""
        return not self._known

    def fits(self, arguments: Any) -> bool:
        """Whether anything is known of a call with arguments of such shapes."""
        return bool(self._known) and shapes_of(arguments) == self._shapes

    def predict(self, step: int) -> Any:
        """What the call is continued to give at a step, of the type of its last output, with tensors of its own."""
        return rebuilt(self._form, iter(self._values(step)))

    def error(self, step: int, output: Any) -> float:
        """||y(step) - y|| / ||y|| over all tensors of what the call gave there, y; infinite for other shapes."""
        if shapes_of(self._known[-1][1]) != shapes_of(list(floating(output))):
            return math.inf
        pairs = list(zip(self._values(step), (y.detach() for y in floating(output)), strict=True))
        off = sum(float((guess - y).float().square().sum()) for guess, y in pairs)
        size = sum(float(y.float().square().sum()) for _, y in pairs)
        return (off / size) ** 0.5 if size else float(off > 0)

    def _values(self, step: int) -> list[torch.Tensor]:
        weights = lagrange_weights([known for known, _ in self._known], step)
        return [_weighted(weights, values) for values in zip(*(output for _, output in self._known), strict=True)]


def shapes_of(arguments: Any) -> list[torch.Size]:
    """The shapes of the tensors among a call's arguments."""
    return [x.shape for x in leaves(arguments) if isinstance(x, torch.Tensor)]


def _weighted(weights: Sequence[float], outputs: Sequence[torch.Tensor]) -> torch.Tensor:
    total = outputs[0] * weights[0]
    for weight, y in zip(weights[1:], outputs[1:], strict=True):
        total.add_(y, alpha=weight)
    return total
