import re
import tomllib
from pathlib import Path

import pytest

from rewards import check
from rewards.packages import missing_packages
from rewards.registry import RewardError, built_in
from rewards.source import read_spec

REPOSITORY = Path(__file__).parents[2]


def test_what_is_missing_is_told_as_the_file_writes_it(tmp_path: Path) -> None:
    file = tmp_path / "needs.txt"
    file.write_text(
        "# all of it\ntorch\nnumpy>=99  # newer than any\nno-such-package==1\nalso-none; python_version < '3'\n"
    )
    assert missing_packages(file) == ["numpy>=99", "no-such-package==1"]


def test_the_extras_have_what_the_rewards_need() -> None:
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    specs = [read_spec(path) for path in built_in().values()]
    files = {spec.packages for spec in specs if spec is not None and spec.packages is not None}
    assert {line for file in files for line in file.read_text().splitlines()} == {*extras["emoji"], *extras["ocr"]}


class Needy:
    differentiable = True
    packages = "needs.txt"

    def __call__(self, images, prompts):
        return images.mean((1, 2, 3))


def test_a_reward_whose_packages_are_missing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needs.txt").write_text("no-such-package==1\n")
    monkeypatch.setattr(Needy, "packages", str(tmp_path / "needs.txt"))
    with pytest.raises(
        RewardError, match=re.escape(f"not installed here: no-such-package==1; pip install -r {tmp_path}")
    ):
        check(f"{__name__}:Needy", {})
