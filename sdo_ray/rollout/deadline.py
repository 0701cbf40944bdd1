"""An end for what hangs."""

from __future__ import annotations

import faulthandler
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)


@contextmanager
def deadline(seconds: float, what: str) -> Iterator[None]:
    """End this process if the block takes longer, with every thread's stack in its log file.

    Args:
        seconds: that it may take.
        what: it does, for the log.
    """

    def end() -> None:
        logger.error("%s has taken longer than %g s; this process ends", what, seconds)
        faulthandler.dump_traceback(all_threads=True)
        os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
