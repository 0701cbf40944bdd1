"""One pipeline of the table through its checks."""

import inspect
from typing import Any

import torch

from .assemble import assemble, inputs
from .cases import CASES
from .check import Passed, check


def run(name: str) -> Passed:
    """Build `name` (without its "Pipeline") and check it.

    Raises:
        Exception: what the pipeline or a check raised.
    """
    pipe = assemble(f"{name}Pipeline", CASES[name].parts)
    arguments = inputs(pipe, CASES[name].call)
    seeded = "generator" in inspect.signature(type(pipe).__call__).parameters

    def call() -> dict[str, Any]:
        return arguments | ({"generator": torch.Generator().manual_seed(3)} if seeded else {})

    return check(pipe, call)
