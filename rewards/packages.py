"""Which packages of a requirements file are not installed."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import Requirement


def missing_packages(file: Path) -> list[str]:
    """Those that are not there, or there in another version, as the file writes them.

    Raises:
        OSError: the file cannot be read.
        ValueError: a line of it is no requirement.
    """
    lines = (line.partition("#")[0].strip() for line in file.read_text().splitlines())
    return [line for line in lines if line and not _is_installed(Requirement(line))]


def _is_installed(wanted: Requirement) -> bool:
    if wanted.marker is not None and not wanted.marker.evaluate():
        return True
    try:
        return wanted.specifier.contains(version(wanted.name), prereleases=True)
    except PackageNotFoundError:
        return False
