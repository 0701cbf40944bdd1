"""The reports of all updates of a run, in files beside its checkpoints.

updates/0000010-0000019.jsonl   one line an update, of those from one checkpoint to the next
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from pyarrow import fs

from sdo_ray.storage import RunDirectory
from sdo_ray.training.records import UpdateReport

DIRECTORY = "updates"


def write_reports(run: RunDirectory, reports: Sequence[UpdateReport]) -> None:
    """Keep the reports of successive updates; nothing without any."""
    if reports:
        lines = "".join(json.dumps(report.to_json()) + "\n" for report in reports)
        run.write(f"{DIRECTORY}/{reports[0].update:07d}-{reports[-1].update:07d}.jsonl", lines.encode())


def read_reports(run: RunDirectory, end: int) -> list[UpdateReport]:
    """Those kept of the updates below `end`, in order."""
    lines = [line for first, path in _files(run) if first < end for line in _lines(run, path)]
    reports = [UpdateReport.from_json(json.loads(line)) for line in lines]
    return [report for report in reports if report.update < end]


def forget_reports(run: RunDirectory, start: int) -> None:
    """Remove those of updates from `start` on, where a checkpoint ended: they will be made again."""
    for first, path in _files(run):
        if first >= start:
            run.filesystem.delete_file(path)


def _files(run: RunDirectory) -> list[tuple[int, str]]:
    """First update, path; in order."""
    found = run.filesystem.get_file_info(fs.FileSelector(f"{run.path}/{DIRECTORY}", allow_not_found=True))
    return sorted((int(i.base_name[:7]), i.path) for i in found if i.base_name.endswith(".jsonl"))


def _lines(run: RunDirectory, path: str) -> list[bytes]:
    with run.filesystem.open_input_stream(path) as stream:
        lines: list[bytes] = stream.read().splitlines()
    return lines
