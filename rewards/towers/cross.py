"""The cross model of MPS: image states look at those words of the prompt that matter for a condition.

Its blocks are those of CoCa (Yu et al., 2205.01917): attention with one head of keys and values for all heads of
queries, a feed-forward part beside it and not behind it, gates of SiLU, and no biases.

    4 times:  x += CA(x, T);  x += PB(x)
    CA(x, T)  n = LN(x);  attention of n's queries to T's keys and values, where the mask lets it;  + ff(n)
    PB(x)     n = LN(x);  attention among all states, with rotary positions;  + ff(n)
"""

from typing import Any

import torch
from torch import Tensor, nn


class CrossModel(nn.Module):
    """Image states [B, N, D] that have looked at text states [B, L, D].

    Args:
        width: D.
        heads: of queries.
        head_width: of a head.
        layers: pairs of blocks.
    """

    def __init__(self, width: int = 1024, heads: int = 16, head_width: int = 64, layers: int = 4) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleList([_Residual(_CrossAttention(*sizes)), _Residual(_ParallelBlock(*sizes))])
            for sizes in [(width, heads, head_width)] * layers
        )

    def forward(self, x: Tensor, text: Tensor, visible: Tensor) -> Tensor:
        """[B, N, D], where `visible` [B, L] says which words are looked at."""
        pair: Any
        for pair in self.layers:
            across, among = pair
            x = x + across.fn(x, text, visible)
            x = x + among.fn(x)
        return x


class _Residual(nn.Module):
    """Holds a block under the name that the checkpoint has for it."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.fn = block


class _Norm(nn.Module):
    """Layer normalisation whose bias is a constant 0 that the checkpoint has."""

    bias: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.register_buffer("bias", torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.layer_norm(x, x.shape[-1:], self.weight, self.bias)


class _Gate(nn.Module):
    """(a, g) -> silu(g) a."""

    def forward(self, x: Tensor) -> Tensor:
        a, g = x.chunk(2, dim=-1)
        return nn.functional.silu(g) * a


class _CrossAttention(nn.Module):
    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self._heads = heads
        self.norm = _Norm(width)
        self.to_q = nn.Linear(width, heads * head_width, bias=False)
        self.to_kv = nn.Linear(width, 2 * head_width, bias=False)
        self.to_out = nn.Linear(heads * head_width, width, bias=False)
        self.ff = nn.Sequential(
            nn.Linear(width, 8 * width, bias=False), _Gate(), nn.Linear(4 * width, width, bias=False)
        )

    def forward(self, x: Tensor, text: Tensor, visible: Tensor) -> Tensor:
        n = self.norm(x)
        k, v = self.to_kv(text).chunk(2, dim=-1)
        return self.to_out(_attend(_split(self.to_q(n), self._heads), k, v, visible[:, None, None])) + self.ff(n)


class _ParallelBlock(nn.Module):
    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self._heads = heads
        self._parts = [heads * head_width, head_width, head_width, 8 * width]
        self.norm = _Norm(width)
        self.rotary_emb = _Rotary(head_width)
        self.fused_attn_ff_proj = nn.Linear(width, sum(self._parts), bias=False)
        self.attn_out = nn.Linear(heads * head_width, width, bias=False)
        self.ff_out = nn.Sequential(_Gate(), nn.Linear(4 * width, width, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v, ff = self.fused_attn_ff_proj(self.norm(x)).split(self._parts, dim=-1)
        q, k = self.rotary_emb(_split(q, self._heads)), self.rotary_emb(k)
        return self.attn_out(_attend(q, k, v)) + self.ff_out(ff)


class _Rotary(nn.Module):
    """Rotary positions (Su et al., 2104.09864), the halves of a head turned against each other."""

    inv_freq: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("inv_freq", 10000.0 ** (-torch.arange(0, width, 2) / width))

    def forward(self, x: Tensor) -> Tensor:
        """[..., N, width], turned by position."""
        angles = torch.outer(torch.arange(x.shape[-2], device=x.device).to(x.dtype), self.inv_freq.to(x.dtype))
        angles = torch.cat([angles, angles], dim=-1)
        first, second = x.chunk(2, dim=-1)
        return x * angles.cos() + torch.cat([-second, first], dim=-1) * angles.sin()


def _split(q: Tensor, heads: int) -> Tensor:
    """[B, N, heads * w] -> [B, heads, N, w]."""
    return q.unflatten(-1, (heads, -1)).transpose(1, 2)


def _attend(q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None = None) -> Tensor:
    """Attention of [B, heads, N, w] to one head of keys and values [B, L, w]; [B, N, heads * w]."""
    scores = q @ k[:, None].mT / q.shape[-1] ** 0.5
    if visible is not None:
        scores = scores.masked_fill(~visible, -torch.inf)
    return (scores.softmax(-1) @ v[:, None]).transpose(1, 2).flatten(2)
