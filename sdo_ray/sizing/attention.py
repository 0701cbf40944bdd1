"""Attention on the meta device: what fused kernels keep for the backward pass, and the operations that they make."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class Operations:
    """Floating-point operations of attention within a block of `fused_attention`."""

    def __init__(self) -> None:
        self.count = 0


class _Fused(torch.autograd.Function):
    """Queries, keys, values, the output and its sums are kept; products are made again by the backward pass."""

    @staticmethod
    def forward(ctx: Any, done: Operations, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        # In the queries' layout, so that heads become columns again without a copy.
        o = torch.empty_like(q) if q.shape[-1] == v.shape[-1] else q.new_empty(*q.shape[:-1], v.shape[-1])
        sums = q.new_empty(q.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(q, k, v, o, sums)
        # Two products, of queries with keys and of shares with values; a multiplication and an addition each.
        ctx.done, ctx.made = done, 2 * k.shape[-2] * (q.numel() + o.numel())
        done.count += ctx.made
        return o

    @staticmethod
    def backward(ctx: Any, *_: Any) -> tuple[torch.Tensor | None, ...]:
        q, k, v, _o, _sums = ctx.saved_tensors
        ctx.done.count += 5 * ctx.made // 2  # five products (Dao et al. 2022, arXiv 2205.14135, algorithm 4)
        return None, torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


@contextmanager
def fused_attention() -> Iterator[Operations]:
    """Within the block attention takes what a fused kernel does, with no values."""
    before, done = torch.nn.functional.scaled_dot_product_attention, Operations()

    def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        output: torch.Tensor = _Fused.apply(done, query, key, value)
        return output

    torch.nn.functional.scaled_dot_product_attention = attention
    try:
        yield done
    finally:
        torch.nn.functional.scaled_dot_product_attention = before
