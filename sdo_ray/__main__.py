"""The command `sdo`, also `python -m sdo_ray`; a folder `pipelines` or `rewards` where it is called does it no harm."""

from __future__ import annotations

import sys

from sdo_ray.own_packages import prefer_own_packages


def main() -> int:
    """Run `sdo COMMAND ...`; returns its exit code."""
    prefer_own_packages()
    from pipelines.cli import main as sdo

    return sdo()


if __name__ == "__main__":
    sys.exit(main())
