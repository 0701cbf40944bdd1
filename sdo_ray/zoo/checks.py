"""One sentence for every setting that is out of range."""

from __future__ import annotations


def require(field: str, got: object, legal: bool, range_: str) -> None:
    """Raises ValueError with the field, what it got and what is legal, unless `legal`."""
    if not legal:
        raise ValueError(f"{field}: got {got!r}; legal is {range_}")
