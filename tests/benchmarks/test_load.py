"""What loading takes is found for a tiny model as for any."""

from pathlib import Path

import pytest

from benchmarks import load


def test_a_model_is_loaded_twice(tiny_base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load.main([str(tiny_base), "--dtype", "float32"])
    imports, first, again = capsys.readouterr().out.splitlines()
    assert imports.startswith("imports ")
    assert first.startswith("first: 0.00 GiB in ")
    assert again.startswith("again: 0.00 GiB in ")
