"""Bad input: what is wrong in parts, and the one error that carries it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import TracebackType


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with what was given; its parts are words, and those that say nothing are empty."""

    setting: str
    """Dotted name, as whoever found the problem knows it; empty for the very thing that the caller gave."""
    got: str
    """What was given, and what is wrong with it where that is not plain: `got 3`, `'a.csv' does not exist`."""
    legal: str = ""
    """What may be given."""
    fix: str = ""
    """What to do about it."""

    def under(self, prefix: str) -> Problem:
        """The same of the setting `prefix` or, where this one names a setting, of that one inside `prefix`."""
        return replace(self, setting=".".join(name for name in (prefix, self.setting) if name))

    def at(self, setting: str) -> Problem:
        """The same of the setting `setting`, which its finder calls otherwise."""
        return replace(self, setting=setting)

    def __str__(self) -> str:
        """One line: `SETTING: GOT; LEGAL; FIX.`"""
        said = "; ".join(part for part in (self.got, self.legal, self.fix) if part)
        end = "" if said.endswith((".", "?")) else "."
        return f"{self.setting}: {said}{end}" if self.setting else f"{said}{end}"


class SettingsError(ValueError):
    """Bad input, found before any work started. A text is a problem of the very thing that the caller gave.

    Attributes:
        problems: everything that is wrong.
    """

    def __init__(self, *problems: Problem | str) -> None:
        self.problems = tuple(Problem("", p) if isinstance(p, str) else p for p in problems)
        super().__init__(*self.problems)

    def under(self, prefix: str) -> SettingsError:
        """Its problems, each under `prefix`."""
        return SettingsError(*(problem.under(prefix) for problem in self.problems))

    def at(self, setting: str) -> SettingsError:
        """Its problems, all of the one setting `setting`."""
        return SettingsError(*(problem.at(setting) for problem in self.problems))

    def __str__(self) -> str:
        """A line for each problem."""
        return "\n".join(map(str, self.problems))


@contextmanager
def under(prefix: str) -> Iterator[None]:
    """Put the problems that the block finds under `prefix`: the caller's name for what the block is given."""
    try:
        yield
    except SettingsError as error:
        raise error.under(prefix) from error.__cause__


@contextmanager
def at(setting: str) -> Iterator[None]:
    """Say the problems that the block finds of the one setting `setting`: what the caller took everything from."""
    try:
        yield
    except SettingsError as error:
        raise error.at(setting) from error.__cause__


class Problems:
    """Several checks whose problems are refused together, each once, when its `with` block ends.

    with Problems() as problems:
        with problems.of("model"):
            check_model(settings.model)
        if settings.count < 1:
            problems.add(Problem("count", ...))
    """

    def __init__(self) -> None:
        self._found: list[Problem] = []

    def add(self, *problems: Problem) -> None:
        """Keep these, and go on."""
        self._found += problems

    @contextmanager
    def of(self, prefix: str = "") -> Iterator[None]:
        """Keep the problems that the block finds, which end it, under `prefix`, and go on after it."""
        try:
            yield
        except SettingsError as error:
            self._found += error.under(prefix).problems

    def __bool__(self) -> bool:
        """Whether there is any so far."""
        return bool(self._found)

    def __enter__(self) -> Problems:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, SettingsError):
            self._found += error.problems
        if self._found and (error is None or isinstance(error, SettingsError)):
            raise SettingsError(*dict.fromkeys(self._found)) from None
