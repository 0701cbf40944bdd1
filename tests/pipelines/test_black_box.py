"""A run that learns from a reward without a gradient alone, and the same result whatever dies."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from sdo_ray.config.align import AlignSettings
from sdo_ray.config.loading import load_settings
from sdo_ray.models.policy import initial_policy
from sdo_ray.seeds import derive_seed
from sdo_ray.storage import RunDirectory
from sdo_ray.training.records import UpdateReport
from sdo_ray.training.standing import progress
from tests.support.ports import free_port
from tests.support.runs import REPOSITORY, AlignProcess, final_adapter, tiny_settings

PLANS: dict[str, dict[str, Any]] = {
    "group": {"children": 4},
    # The samplers have an average of the policies beside the newest, which is resumed with it.
    "nft": {"samples": 4, "decay": 0.9},
    "awm": {"samples": 4, "times": 2},
}


def settings(directory: Path, base: Path, reward: dict[str, Any], plan: str = "group") -> Path:
    directory.mkdir()
    return tiny_settings(
        directory,
        base,
        plan={"name": plan, "options": PLANS[plan]},
        rewards={"terms": [reward]},
        samplers={"count": 1, "batch_size": 2},
        training={"updates": 4, "batch_size": 4},
        trainers={"count": 1},
        tracking={"preview_every": 100},
    )


def reports(settings: Path) -> list[UpdateReport]:
    return progress(RunDirectory(str(settings.parent / "runs"), "tiny"))[1]


@pytest.mark.slow
@pytest.mark.parametrize("plan", PLANS)
def test_a_run_of_a_black_box_alone_resumes_to_the_bit(tiny_base: Path, tmp_path: Path, plan: str) -> None:
    jpeg = {"name": "jpeg_compressibility"}
    whole, broken = (settings(tmp_path / name, tiny_base, jpeg, plan) for name in ("whole", "broken"))
    with AlignProcess(str(whole)) as run:
        output = run.finish()
    assert "warning: samples are compared with 3 others" in output
    with AlignProcess(str(broken)) as run:
        run.until("update 3")
        run.kill_everything()
    with AlignProcess(str(broken)) as run:
        run.finish()
    expected, resumed = final_adapter(whole.parent), final_adapter(broken.parent)
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)
    made = load_settings(AlignSettings, whole)
    start = initial_policy(made.model, derive_seed(made.run.seed, "adapter", 0))
    assert max((expected[name] - start[name]).abs().max().item() for name in start) > 0.01
    for report in reports(whole):
        # 4 prompts an update with 4 samples each, none of them skipped
        assert (report.num_samples, report.num_skipped) == (16, 0)
        assert report.groups["flat_share"] < 1
    if plan != "group":
        assert [report.groups["deviation"] > 0 for report in reports(whole)] == [False, True, True, True]


@pytest.mark.slow
def test_a_scorer_behind_http_that_is_late_or_answers_garbage_costs_samples_and_nothing_else(
    tiny_base: Path, tmp_path: Path
) -> None:
    port = free_port()
    options = {"url": f"http://127.0.0.1:{port}", "batch_size": 1, "timeout": 4.0, "retries": 0}
    path = settings(tmp_path / "http", tiny_base, {"name": "http_scorer", "options": options})
    scorer = subprocess.Popen([sys.executable, "-m", "tests.support.ill_scorer", str(port)], cwd=REPOSITORY)
    try:
        with AlignProcess(str(path)) as run:
            run.finish()
    finally:
        scorer.kill()
        scorer.wait()
    made = reports(path)
    assert [report.num_samples + report.num_skipped for report in made] == [16] * 4
    # a fifth is late and a seventh garbage, together 11 of 35
    skipped = sum(report.num_skipped for report in made)
    assert 12 <= skipped <= 28
    for report in made:
        assert report.groups["missing"] > 0
        assert report.gradient_norm > 0
        spread = report.reward
        assert spread.mean is not None
        assert spread.std is not None
        # No PNG of 16 x 16 is smaller than 0.1 kB; a 0 among 16 would be 4 deviations away, and show in both.
        assert spread.mean < -0.1
        assert spread.std < 0.25 * abs(spread.mean)
