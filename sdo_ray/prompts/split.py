"""Which prompts are for training and which for judging: their own text decides."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from sdo_ray.prompts.clean import Prompt, identity


def is_heldout(text: str, share: float, duplicates: str) -> bool:
    """Whether a prompt is for judging: its SHA-256, as a number in [0, 1), is below `share`.

    A prompt so stays on its side in every run, whatever else the source holds; and on the side of its duplicates.

    Args:
        text: normalised.
        share: in (0, 1).
        duplicates: what makes two prompts one, `text` or `words`.
    """
    digest = hashlib.sha256(identity(text, duplicates).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < share


def split(prompts: Iterable[Prompt], share: float, duplicates: str) -> tuple[list[Prompt], list[Prompt]]:
    """(for training, for judging), each in the order given."""
    sides: tuple[list[Prompt], list[Prompt]] = ([], [])
    for prompt in prompts:
        sides[is_heldout(prompt.text or "", share, duplicates)].append(prompt)
    return sides
