"""The prompts that a run was begun with belong to it, whatever file they come from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

from sdo_ray.settings import Problem, SettingsError
from sdo_ray.storage import RunDirectory

FILE = "inputs.json"


class Inputs:
    """What a run reads besides its settings.

    Args:
        texts: setting that names the file -> the texts that were read, in their order.
    """

    def __init__(self, texts: Mapping[str, Sequence[str]]) -> None:
        self._hashes = {
            setting: hashlib.sha256(json.dumps(list(read)).encode()).hexdigest() for setting, read in texts.items()
        }

    def check(self, run: RunDirectory) -> None:
        """Refuse a run that was begun with other texts; one of an earlier version, which kept no hashes, is taken.

        Raises:
            SettingsError: with every such setting.
        """
        known = run.read_json(FILE, lost="whether the prompts are those that the run was begun with") or {}
        problems = [
            Problem(
                setting,
                f"what it names is not what the run {run.name!r} was begun with: texts or their order differ",
                fix="restore them to resume, or choose another run.name",
            )
            for setting, found in self._hashes.items()
            if known.get(setting, found) != found
        ]
        if problems:
            raise SettingsError(*problems)

    def keep(self, run: RunDirectory) -> None:
        """Bind the run to them."""
        run.write_json(FILE, self._hashes)
