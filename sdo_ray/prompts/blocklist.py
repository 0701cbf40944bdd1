"""Words and phrases that no prompt may contain, however they are written."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_LOOK_ALIKES = str.maketrans(
    # Cyrillic and Greek small letters -> the Latin ones that they look like.
    "авеёһіјкмнопрстухԁԛѕԝ" + "αβεηικνορτυχ",
    "abeehijkmhonpctyxdqsw" + "abenikvoptux",
)
_WITHOUT_SPACES = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
"""Thai, Lao, Burmese, Khmer, Japanese and Chinese, in which words follow one another without a space."""


class Blocklist:
    """Finds blocked words and phrases.

    As whole words, in the plural too, in any case; `_` and digits end a word as spaces do. Letters of other widths
    and styles, Cyrillic and Greek ones that look like Latin ones, and marks that are not seen make no difference. In
    scripts that write words without spaces a phrase is found anywhere.

    Args:
        phrases: what is blocked.
    """

    def __init__(self, phrases: Sequence[str]) -> None:
        plain = [folded(phrase) for phrase in phrases if folded(phrase)]
        whole = [re.escape(phrase).replace(r"\ ", r"[\W_]+") for phrase in plain if not _WITHOUT_SPACES.search(phrase)]
        parts = [rf"(?<![^\W\d_])(?:{'|'.join(whole)})(?:e?s)?(?![^\W\d_])"] if whole else []
        parts += [re.escape(phrase) for phrase in plain if _WITHOUT_SPACES.search(phrase)]
        self._pattern = re.compile("|".join(parts)) if parts else None

    def blocks(self, text: str) -> bool:
        """Whether one of them is in it."""
        return self._pattern is not None and self._pattern.search(folded(text)) is not None


def folded(text: str) -> str:
    """The text for comparison: as it looks, without what is not seen, in small letters without accents."""
    seen = "".join(c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) != "Cf")
    small = unicodedata.normalize("NFKD", seen.casefold())
    return " ".join("".join(c for c in small if not unicodedata.combining(c)).translate(_LOOK_ALIKES).split())
