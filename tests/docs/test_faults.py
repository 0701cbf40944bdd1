"""The table of faults in docs/operations.md names tests that there are."""

import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def test_what_causes_each_fault_is_there() -> None:
    page = (REPOSITORY / "docs/operations.md").read_text()
    rows = re.findall(r"^\|[^|]+\|[^|]+\|((?: `[\w/]+\.py::\w+`,?)+) \|$", page, re.MULTILINE)
    assert len(rows) > 20
    for file, name in re.findall(r"`([\w/]+\.py)::(\w+)`", "".join(rows)):
        assert f"def {name}(" in (REPOSITORY / "tests" / file).read_text(), f"{file}::{name}"
