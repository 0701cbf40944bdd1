"""Clean prompts: one spelling, no empty ones, none too long, none blocked, each once."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from sdo_ray.prompts.blocklist import Blocklist
from sdo_ray.prompts.settings import PreparationSettings


@dataclass(frozen=True)
class Prompt:
    """A prompt of the source."""

    row: int
    """Its row there, from 0."""
    text: str | None
    category: str | None = None


@dataclass(frozen=True)
class Dropped:
    """A prompt that is dropped, and why."""

    row: int
    text: str | None
    reason: str
    """`empty`, `too short`, `too long`, `blocked`, `held out` or `duplicate`."""


def clean(
    prompts: Iterable[Prompt], settings: PreparationSettings, elsewhere: Iterable[str] = ()
) -> tuple[list[Prompt], list[Dropped]]:
    """Normalise, filter and deduplicate; of duplicates the first stays.

    Text becomes Unicode NFC, control characters and runs of white space one space; what is not seen, such as soft
    hyphens, goes, but for joiners.

    Args:
        prompts: of the source.
        settings: of the preparation.
        elsewhere: prompts that are held out already, of which none is kept.

    Returns:
        The prompts kept, in the source's order, and the others; each of the source is in one of the two.
    """
    blocked = Blocklist(settings.blocked)
    kept, dropped, seen = [], [], set[str]()
    taken = {identity(normalise(text), settings.duplicates) for text in elsewhere}
    for prompt in prompts:
        text = normalise(prompt.text or "")
        if reason := _refuse(text, settings, blocked):
            dropped.append(Dropped(prompt.row, prompt.text, reason))
        elif (key := identity(text, settings.duplicates)) in taken:
            dropped.append(Dropped(prompt.row, prompt.text, "held out"))
        elif key in seen:
            dropped.append(Dropped(prompt.row, prompt.text, "duplicate"))
        else:
            seen.add(key)
            kept.append(Prompt(prompt.row, text, prompt.category))
    return kept, dropped


def normalise(text: str) -> str:
    """The same text in one spelling."""
    plain = "".join(" " if unicodedata.category(c) == "Cc" else c for c in text if _is_kept(c))
    return " ".join(unicodedata.normalize("NFC", plain).split())


def _is_kept(character: str) -> bool:
    """Not, of what is not seen, but joiners: words of Persian have them, and emoji."""
    return unicodedata.category(character) != "Cf" or character in "\u200c\u200d"


def identity(text: str, duplicates: str) -> str:
    """What two prompts share that count as one.

    Args:
        text: normalised.
        duplicates: `text` or `words`.
    """
    folded = text.casefold()
    if duplicates == "text":
        return folded
    # A text without any letter or digit, an emoji for example, is its own word.
    return " ".join(sorted(set(re.findall(r"\w+", folded)))) or folded


def _refuse(text: str, settings: PreparationSettings, blocked: Blocklist) -> str | None:
    words = len(text.split())
    if not words:
        return "empty"
    if words < settings.min_words:
        return "too short"
    if words > settings.max_words or len(text) > settings.max_characters:
        return "too long"
    return "blocked" if blocked.blocks(text) else None
