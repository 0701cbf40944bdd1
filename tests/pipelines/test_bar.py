"""Lines for logs, and a bar below them for people at a terminal."""

import os
import pty
import subprocess
import sys

from tests.support.runs import REPOSITORY

CODE = """
from pipelines.bar import bar
with bar(3, "updates") as move:
    for i in range(3):
        print(f"update {i + 1}/3  reward [0.5]", flush=True)
        move(i + 1)
"""
LINES = [f"update {i}/3  reward [0.5]" for i in (1, 2, 3)]


def test_a_log_has_the_lines_alone() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == LINES


def test_a_terminal_has_both() -> None:
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen([sys.executable, "-c", CODE], cwd=REPOSITORY, env=environment, stdout=theirs)
    os.close(theirs)
    said = b""
    while True:
        try:
            read = os.read(ours, 4096)
        except OSError:  # Linux's end of a terminal
            break
        if not read:
            break
        said += read
    os.close(ours)
    assert process.wait() == 0
    text = said.decode()
    assert all(line in text for line in LINES)
    assert "3/3" in text
    assert "━" in text
