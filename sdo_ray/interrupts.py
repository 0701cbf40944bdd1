"""Being told to end: by SIGTERM, as schedulers and containers do, as by Ctrl-C."""

import signal
import threading


def end_as_by_ctrl_c() -> None:
    """From now on SIGTERM raises KeyboardInterrupt in the main thread, as SIGINT does.

    To be called again after `ray.init`, whose own handlers print a stack and may be overheard.
    """
    if threading.current_thread() is threading.main_thread():  # no other may set handlers
        signal.signal(signal.SIGTERM, signal.default_int_handler)
