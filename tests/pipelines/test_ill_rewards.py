"""A reward that falls ill in every way costs a run the samples it fell ill at, and nothing else."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sdo_ray.prompts.schedule import schedule
from sdo_ray.storage import RunDirectory
from sdo_ray.training.history import read_reports
from tests.support.runs import AlignProcess, tiny_settings

ILL = "tests.support.ill_rewards:Ill"
BATCH, PAIR = 10, 2
"""Samples of an update, and of a sampler batch."""
ILLNESSES = ["nan", "memory", "raise", "once die", "once hang"]
"""Of the second update, one in each sampler batch."""


def ill_prompts() -> list[str]:
    """Two updates' prompts, in the order of the file."""
    names = [str(number) for number in range(2 * BATCH)]
    blocks = schedule(names, seed=3, batch_size=BATCH, sampler_batch_size=PAIR, start=1, stop=2)
    firsts = [batch["prompts"][0] for block in blocks for batch in block.to_pylist()]
    ill = dict(zip(firsts, ILLNESSES, strict=True))
    return [ill.get(name, name) for name in names]


@pytest.mark.slow
def test_each_illness_costs_its_samples_and_is_said(tiny_base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "processes"
    folder.mkdir()
    ill = {"name": ILL, "options": {"folder": str(folder)}, "timeout": 15.0, "max_restarts": 10}
    settings = tiny_settings(
        tmp_path,
        tiny_base,
        rewards={"terms": [ill]},
        samplers={"count": 1, "batch_size": PAIR},
        training={"updates": 2, "batch_size": BATCH, "dry_batch": False},
        trainers={"count": 1},
        evaluation={"num_prompts": 2},
        tracking={"preview_prompts": []},
    )
    pq.write_table(pa.table({"prompt": ill_prompts()}), tmp_path / "prompts.parquet")
    with AlignProcess(str(settings)) as run:
        said = run.finish()
    first, second = read_reports(RunDirectory(str(tmp_path / "runs"), "tiny"), 2)
    assert (first.num_samples, first.num_skipped, first.failures) == (BATCH, 0, ())
    # One of a pair for NaN and for memory, which is found by halving the batch; both of the one that raises.
    assert (second.num_samples, second.num_skipped, second.num_splits) == (6, 4, 1)
    assert second.gradient_norm > 0
    assert {cause.partition(":")[0] for cause in second.failures} == {"OSError", "RuntimeError"}
    [line] = [line for line in said.splitlines() if line.startswith("update 2/2")]
    assert line.endswith("4 SKIPPED  1 SPLIT, for memory")
    assert f"reward {ILL!r} died while it scored; restart" in said
    assert f"reward {ILL!r} did not answer within 15 seconds; restart" in said
    assert "it is made in halves" in said
    assert len([file for file in folder.iterdir() if file.name.isdigit()]) == 3
