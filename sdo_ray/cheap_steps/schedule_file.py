"""The file that `sdo schedule` writes and `sampling.cache` takes: which steps to compute, at several prices.

num_inference_steps: 20
front:                        # cheapest first, each nearer to exact steps than all cheaper ones
  - cost: 0.31                # of sampling with all steps exact
    error: 0.052
    cache: {name: taylor, order: 1, steps: [0, 3, 7], of: 20}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml


def write_schedule(about: Mapping[str, Any], front: Sequence[Mapping[str, Any]]) -> str:
    """The file's text.

    Args:
        about: what the schedule was found for: names and plain values.
        front: `cost`, `error` and `cache` of each entry.
    """
    ordered = sorted(front, key=lambda entry: entry["cost"])
    return yaml.safe_dump({**about, "front": [dict(entry) for entry in ordered]}, sort_keys=False, width=110)


def read_schedule(path: str, cost: float | None) -> dict[str, Any]:
    """`sampling.cache` of the entry with the least error that costs at most `cost`.

    Args:
        path: of a local file.
        cost: share of the time of exact steps; may be None where the file has one entry.

    Raises:
        ValueError: the file cannot be read or is none of these; no entry is as cheap; which one is not said.
    """
    try:
        front = yaml.safe_load(Path(path).read_text(encoding="utf-8"))["front"]
        entries = [(float(entry["cost"]), float(entry["error"]), dict(entry["cache"])) for entry in front]
    except OSError as error:
        raise ValueError(f"`schedule` names {path!r}, which cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, KeyError, TypeError, ValueError, UnicodeDecodeError):
        raise ValueError(f"`schedule` names {path!r}, which is no file of `sdo schedule`; name one") from None
    there = f"{path!r} has entries that cost {', '.join(f'{price:.2f}' for price, *_ in entries) or '(none)'}"
    if cost is None and len(entries) != 1:
        raise ValueError(f"`schedule` is given without `cost`, and {there}; give `cost`, the most that it may be")
    cheap = [entry for entry in entries if cost is None or entry[0] <= cost]
    if not cheap:
        raise ValueError(f"`cost` is {cost:g}, and {there}; raise it")
    return min(cheap, key=lambda entry: entry[1])[2]
