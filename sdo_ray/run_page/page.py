"""The file `run.html` of a run's directory, written as updates come."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import Self

from pyarrow import fs

from sdo_ray.run_page.render import render
from sdo_ray.storage import RunDirectory
from sdo_ray.training.decisions import Continue, Decision
from sdo_ray.training.records import UpdateReport

PAGE, PREVIEWS = "run.html", "previews"
"""The page; the directory of the previews, one PNG an update, which a resumed run goes on from."""
EVERY = 60.0
"""Seconds between two writings without a new preview."""


class RunPage:
    """An `Observer` that keeps a run's page up to date, and writes it a last time when the block ends.

    A storage that cannot be written for a moment is no reason to stop a run for: the next page has everything.

    Args:
        run: its directory.
        updates: of the whole run.
        reports: of the updates that are made already.
    """

    def __init__(self, run: RunDirectory, updates: int, reports: Sequence[UpdateReport]) -> None:
        self._run, self._updates = run, updates
        self._reports = {report.update: report for report in reports}
        self._notes: list[tuple[int, str]] = []
        self._previews = _kept_previews(run)
        self._written = -EVERY

    def observe(self, report: UpdateReport) -> Decision:
        """See `Observer`."""
        self._reports[report.update] = report
        if report.preview is not None:
            self._previews[report.update + 1] = report.preview
            self._keep(f"{PREVIEWS}/{report.update + 1:06d}.png", report.preview)
        self._notes += [(report.update + 1, f"samples were skipped: {cause}") for cause in sorted(set(report.failures))]
        if report.preview is not None or monotonic() - self._written >= EVERY:
            self.write()
        return Continue()

    def note(self, update: int, what: str) -> None:
        """Something that happened at an update, from 1, such as a decision; in words."""
        self._notes.append((update, what))

    def write(self) -> None:
        """Write the page as it is now."""
        reports = [self._reports[update] for update in sorted(self._reports)]
        self._keep(PAGE, render(self._run.name, self._updates, reports, self._previews, self._notes).encode())
        self._written = monotonic()

    def __enter__(self) -> Self:
        self.write()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is not None:
            self.note(max(self._reports, default=-1) + 1, f"it ended with {type(error).__name__}: {error}")
        self.write()

    def _keep(self, name: str, data: bytes) -> None:
        try:
            self._run.write(name, data)
        except OSError as error:
            print(f"{self._run.place(name)} could not be written: {error}", flush=True)


def _kept_previews(run: RunDirectory) -> dict[int, bytes]:
    """Update, from 1 -> PNG, of those that this run made before."""
    found = run.filesystem.get_file_info(fs.FileSelector(f"{run.path}/{PREVIEWS}", allow_not_found=True))
    names = [info.base_name for info in found if info.base_name.removesuffix(".png").isdigit()]
    previews = {}
    for name in sorted(names):
        with run.filesystem.open_input_file(f"{run.path}/{PREVIEWS}/{name}") as file:
            previews[int(name.removesuffix(".png"))] = file.read()
    return previews
