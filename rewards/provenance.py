"""What exactly gave the scores: for the records of a run."""

import hashlib
import json
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rewards.spec import RewardSpec

_PACKAGES = ("sdo-ray", "torch", "transformers")
_NONCOMMERCIAL = re.compile(r"\bNC\b|noncommercial", re.IGNORECASE)


def provenance(name: str, reward: Any, options: Mapping[str, Any], spec: RewardSpec) -> dict[str, Any]:
    """What a reward is and was made from.

    Args:
        name: name or import path.
        reward: an instance.
        options: what it was made with.
        spec: what it says of itself.

    Returns:
        `name`; `options`; `weights_hash`, the sha256 of all that its scores rest on, or of name and options if that is
        all; `licence`, an SPDX expression or None; `sources`, what its weights were read from: source, revision of the
        hub and sha256; `versions` of the packages that computed it, where it runs.
    """
    sources = [vars(part) for part in getattr(reward, "checkpoints", ())]
    settings = json.dumps([name, options], sort_keys=True, default=str)
    contents = "".join(part["sha256"] for part in sources) or settings
    return {
        "name": name,
        "options": dict(options),
        "weights_hash": getattr(reward, "weights_hash", hashlib.sha256(contents.encode()).hexdigest()),
        "licence": spec.licence,
        "sources": sources,
        "versions": {package: found for package in _PACKAGES if (found := _version(package)) is not None},
    }


def as_tags(key: str, found: Mapping[str, Any]) -> dict[str, str]:
    """Provenance as texts by name, under `reward.KEY`."""
    tags = {
        "": f"{found['weights_hash']} {found['options']}",
        ".licence": found["licence"] or "not said",
        ".sources": "; ".join(
            f"{part['source']}{'@' + part['revision'] if part['revision'] else ''} {part['sha256']}"
            for part in found["sources"]
        ),
        ".versions": ", ".join(f"{package} {number}" for package, number in found["versions"].items()),
    }
    return {f"reward.{key}{part}": text for part, text in tags.items() if text}


def is_noncommercial(licence: str | None) -> bool:
    """Whether an SPDX expression has a licence that forbids commercial use, such as CC-BY-NC-4.0."""
    return licence is not None and _NONCOMMERCIAL.search(licence) is not None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
