"""`sdo align`, stopped at the worst moment: its model is registered, and nothing beside the run says so yet."""

import signal
import sys
from typing import Any

import pipelines.align

SAID = "the machine goes down"


def stop(*_: Any) -> None:
    """Wait for whoever kills this process."""
    print(SAID, flush=True)
    signal.pause()


if __name__ == "__main__":
    pipelines.align.write_outcome = stop  # type: ignore[assignment]
    sys.exit(pipelines.align.main())
