"""The whole run of a model of published size, in miniature."""

from pathlib import Path

import pytest

from benchmarks.whole_run import ENCODERS, write
from tests.support.runs import AlignProcess


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODERS)
def test_the_run_learns(tmp_path: Path, name: str) -> None:
    with AlignProcess(str(write(name, tmp_path, device="cpu", tiny=True))) as run:
        output = run.finish()
    assert "version 4: all updates were made" in output
    assert (tmp_path / f"runs/{name}/adapter").is_dir()
