"""What every settings class is made of."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator


class Settings(BaseModel):
    """Base of all settings: immutable, strict about types, and no key but the declared ones."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())

    old_names: ClassVar[dict[str, str]] = {}
    """Names that settings had in earlier versions -> their names now. Both are taken; not both at once."""

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        old = {key: cls.old_names[key] for key in given if key in cls.old_names}
        if twice := [f"{key} and {new}" for key, new in old.items() if new in given]:
            raise ValueError(f"{', '.join(twice)} are one setting; give it once, by its new name")
        return {old.get(key, key): value for key, value in given.items()}

    def to_dict(self) -> dict[str, Any]:
        """Plain YAML-able values, defaults included."""
        return self.model_dump(mode="json")
