"""What the start of a run takes: until each thing is said, and of every process until the first update is made.

    python -m benchmarks.start SETTINGS [--set run.storage=DIRECTORY]

Seconds by the clock depend on what else the machine does; CPU seconds of the processes hardly do. Where there are more
cores than processes, a start takes as long as the longest chain of them: driver, controller, trainer, the two that hand
its data on, sampler. The run is ended after its first update.
"""

from __future__ import annotations

import argparse
import collections
import signal
import subprocess
import sys
import time

import psutil


def cpu_seconds(parent: int) -> dict[str, float]:
    """CPU seconds of a process and all that it started, by name."""
    seconds: collections.Counter[str] = collections.Counter()
    for process in (first := psutil.Process(parent), *first.children(recursive=True)):
        try:
            times, words = process.cpu_times(), process.cmdline()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        ours = words and words[0].startswith("ray::")
        seconds["driver" if process.pid == parent else words[0] if ours else "Ray's own"] += times.user + times.system
    return dict(seconds.most_common())


def main() -> None:
    """Start the run, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings")
    parser.add_argument("--set", action="append", default=[], metavar="a.b=c")
    given = parser.parse_args()
    changes = [word for change in given.set for word in ("--set", change)]
    began = time.monotonic()
    run = subprocess.Popen(
        [sys.executable, "-u", "-m", "pipelines.align", given.settings, *changes], stdout=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    for line in run.stdout:
        print(f"{time.monotonic() - began:6.1f} s  {line.rstrip()}", flush=True)
        if line.startswith("update "):
            break
    found = cpu_seconds(run.pid)
    print("\n".join(f"{seconds:6.1f} CPU s  {name}" for name, seconds in found.items() if seconds >= 0.1))
    print(f"{sum(found.values()):6.1f} CPU s  in all")
    run.send_signal(signal.SIGINT)
    run.communicate()


if __name__ == "__main__":
    main()
