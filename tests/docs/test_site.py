"""The documentation builds as a site, and what it points to is there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.commands import COMMANDS

REPOSITORY = Path(__file__).parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]


def test_the_site_builds_with_every_link_and_anchor_right(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}  # of the theme's authors, about its successor
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "reaches end of life" not in done.stderr
    assert (tmp_path / "index.html").is_file()
    # Nothing of the site asks another host for anything.
    asked = re.findall(r'(?:src|href)="(https?://[^"]+\.(?:js|css|woff2?))"', (tmp_path / "index.html").read_text())
    assert not asked


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target
    for path in re.findall(r"`((?:pipelines|sdo_ray|rewards|infra|tests|benchmarks|docs)/[\w./-]+)`", text):
        assert (REPOSITORY / path).exists(), path


def test_every_command_has_a_page_that_says_how_it_is_called() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    assert not [command for command in COMMANDS if f"sdo {command}" not in text]
