"""Support vector regression as libsvm's text files have it."""

from pathlib import Path

import torch
from torch import Tensor


class SupportVectorRegression:
    """sum over i of c_i exp(-gamma |x - x_i|^2) - rho.

    Args:
        file: of libsvm, an `epsilon_svr` with the kernel `rbf`.

    Raises:
        OSError: there is no such file.
        ValueError: it is another kind of model.
    """

    def __init__(self, file: Path) -> None:
        head, marker, body = file.read_text().partition("\nSV\n")
        settings = dict(line.split(None, 1) for line in head.splitlines() if " " in line)
        if not marker or (settings.get("svm_type"), settings.get("kernel_type")) != ("epsilon_svr", "rbf"):
            raise ValueError(f"{file} is no support vector regression of libsvm with the kernel rbf")
        rows = [line.split() for line in body.splitlines() if line.strip()]
        places = [[pair.split(":") for pair in row[1:]] for row in rows]
        self._vectors = torch.zeros(
            len(rows), max(int(place) for row in places for place, _ in row), dtype=torch.float64
        )
        for number, row in enumerate(places):
            for place, value in row:
                self._vectors[number, int(place) - 1] = float(value)
        self._weights = torch.tensor([float(row[0]) for row in rows], dtype=torch.float64)
        self._gamma, self._rho = float(settings["gamma"]), float(settings["rho"])

    def __call__(self, x: Tensor) -> float:
        """Of features, float64 [D]."""
        near = torch.exp(-self._gamma * (self._vectors - x).square().sum(1))
        return float(self._weights @ near) - self._rho


def read_ranges(file: Path, number: int) -> tuple[Tensor, Tensor]:
    """Smallest and largest value of each of `number` features, float64, as `svm-scale` writes them for -1 to 1.

    Raises:
        OSError: there is no such file.
        ValueError: it has others.
    """
    lines = [line.split() for line in file.read_text().splitlines() if line.strip()]
    if len(lines) != number + 2 or lines[0] != ["x"] or [float(part) for part in lines[1]] != [-1, 1]:
        raise ValueError(f"{file} has no ranges of {number} features for -1 to 1, as svm-scale writes them")
    values = torch.tensor([[float(part) for part in line[1:]] for line in lines[2:]], dtype=torch.float64)
    return values[:, 0], values[:, 1]
