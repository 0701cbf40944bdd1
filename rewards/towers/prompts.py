"""Embeddings of prompts, each computed once."""

from collections.abc import Callable

import torch
from torch import Tensor

_MAX_CACHED = 100_000


class PromptEmbeddings:
    """Prompts to embeddings, remembered.

    Args:
        embed: one prompt -> its embedding, [...]. One at a time, because padding to the longest of a batch would change
            the last bits, and with them the scores, with the company kept.
    """

    def __init__(self, embed: Callable[[str], Tensor]) -> None:
        self._embed = embed
        self._cache: dict[str, Tensor] = {}

    @torch.no_grad()
    def __call__(self, prompts: list[str]) -> Tensor:
        """Embeddings, [B, ...], without a graph."""
        if len(self._cache) > _MAX_CACHED:
            self._cache.clear()
        for prompt in {*prompts} - self._cache.keys():
            self._cache[prompt] = self._embed(prompt)
        return torch.stack([self._cache[prompt] for prompt in prompts])
