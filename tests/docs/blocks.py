"""The fenced blocks of README and docs that a shell runs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
_FENCED = re.compile(r"^```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^```", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One of them."""

    page: str
    language: str
    text: str

    @property
    def first(self) -> str:
        """Its first line without its comment."""
        return self.text.partition("\n")[0].partition("  #")[0].strip()

    @property
    def typed(self) -> str:
        """What of it is typed: all, or the lines after `$ ` of what a terminal shows."""
        if self.language != "console":
            return self.text
        return "\n".join(line[2:] for line in self.text.splitlines() if line.startswith("$ "))


def blocks_of(page: Path) -> list[Block]:
    """All fenced blocks of a page, whatever their language."""
    return [Block(page.name, found["language"], found["text"]) for found in _FENCED.finditer(page.read_text())]


APART = {
    ("README.md", "make demo"): "makes this environment, and runs this test",
    ("benchmarks.md", "python -m benchmarks.estimators"): "hours; tests/benchmarks runs them small, from a checkout",
    ("cheap-steps.md", "python -m benchmarks.estimators"): "an hour; tests/benchmarks runs them small, from a checkout",
    ("cycle.md", "sdo submit cycle"): "tests/pipelines/test_drill.py runs it, with a server and a cluster",
    ("cycle.md", "$ sdo promote"): "tests/pipelines/test_drill.py runs it, after the block above it",
    ("first-run.md", "git clone"): "what is cloned is this",
    ("operations.md", "export RAY_AUTH_MODE"): "an object store; README's submission is run",
    ("operations.md", "docker build"): "no daemon",
    ("operations.md", "kubectl"): "no Kubernetes cluster",
    ("own-model.md", "sdo compose"): "weights of a hub; tests/pipelines/test_compose.py composes tiny ones",
    ("own-model.md", "cd docs/examples"): "from a checkout; tests/models/test_own.py trains it",
    (
        "promote.md",
        "sdo promote pipelines/configs/promote_emoji.yaml --rollback",
    ): "there is one version, and not three; tests/pipelines/test_promote.py goes back",
    ("recipes.md", "sdo align"): "weights of a hub; tests/pipelines/test_recipes.py runs each on a tiny model",
    (
        "rewards.md",
        "pip install",
    ): "no network, and no GPU for what it serves; tests/rewards/test_service.py serves one",
    ("rewards.md", "python -m benchmarks.ablation"): "hours; from a checkout",
    ("rewards.md", "sdo sample --model zoo://emoji --prompts"): "many minutes; from a checkout",
    ("rewards.md", "P=sdo_ray"): "writes over the weights of a checkout; tests/rewards/test_fitting.py fits",
    ("zoo.md", "python -m pipelines.pretrain"): "a parquet of one's own; tests/zoo/test_pretraining.py trains of one",
}
"""(page, beginning of a block) -> why it is not run by test_shell_blocks.py, and what is instead."""


def why_apart(block: Block) -> str | None:
    """Why a block is not run; None for one that is."""
    reasons = [why for (page, start), why in APART.items() if page == block.page and block.text.startswith(start)]
    return reasons[0] if reasons else None
