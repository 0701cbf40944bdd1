"""The gradient of what is trained, as one vector."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch


class Gradient(Mapping[str, torch.Tensor]):
    """Parameter name -> gradient: views of one vector, so that checks, copies and sums are one operation each.

    Args:
        vector: all gradients one after the other, [P].
        shapes: of each, by its name, in that order; they have P elements together.
    """

    def __init__(self, vector: torch.Tensor, shapes: Mapping[str, Sequence[int]]) -> None:
        self.vector = vector
        self.shapes = {name: tuple(shape) for name, shape in shapes.items()}
        parts = vector.split([torch.Size(shape).numel() for shape in self.shapes.values()])
        self._parts = dict(zip(self.shapes, parts, strict=True))

    @classmethod
    def of(cls, gradients: Mapping[str, torch.Tensor]) -> Gradient:
        """Copy them, as float32, in the order of their names, on the device of the first."""
        ordered = dict(sorted(gradients.items()))
        flat = [gradient.detach().flatten().float() for gradient in ordered.values()]
        return cls(
            torch.cat(flat) if flat else torch.empty(0), {name: tensor.shape for name, tensor in ordered.items()}
        )

    @classmethod
    def none(cls) -> Gradient:
        """That of a batch which adds nothing to its update, or whose gradient the trainers make."""
        return cls.of({})

    def cpu(self) -> Gradient:
        """The same on the CPU."""
        return Gradient(self.vector.cpu(), self.shapes)

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._parts[name].view(self.shapes[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)
