"""What every settings class is made of, and the one error that bad input gets."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class SettingsError(ValueError):
    """Bad input, found before any work started.

    Attributes:
        problems: one line each: the field, what was given, what is legal, how to fix it.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__(*problems)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(self.problems)


class Settings(BaseModel):
    """Base of all settings: immutable, strict about types, and no key but the declared ones."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())

    def to_dict(self) -> dict[str, Any]:
        """Plain YAML-able values, defaults included."""
        return self.model_dump(mode="json")
