"""What can be wrong with a plan or a traced call; every error says what was given, what is legal and how to fix it."""

from typing import Any


class BackpropError(ValueError):
    """A refusal with its parts, so that a caller can show or re-word it.

    Attributes:
        field: the option or argument that is wrong.
        got: the value it had.
        legal: what it may be, in words.
        fix: what to do about it.
    """

    def __init__(self, field: str, got: Any, legal: str, fix: str) -> None:
        super().__init__(field, got, legal, fix)
        self.field, self.got, self.legal, self.fix = field, got, legal, fix

    def __str__(self) -> str:
        return f"{self.field}: got {self.got!r}; legal: {self.legal}. Fix: {self.fix}"


class PlanError(BackpropError):
    """A plan that cannot be made: unknown name, unknown option, or an option out of range."""


class TraceError(BackpropError):
    """A pipeline call that cannot be traced, or does not agree with its plan."""
