"""Kinds of LoRA that start from the base model's weights, or scale otherwise: what dies changes no bit of them."""

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from tests.support.runs import AlignProcess, final_adapter, tiny_settings

KINDS: dict[str, dict[str, Any]] = {"dora and rslora": {"dora": True, "rslora": True}, "pissa": {"init": "pissa"}}
LORA = {"rank": 2, "alpha": 4.0, "targets": ["to_q", "to_v"]}
PLAIN = {
    "rewards": {"terms": [{"name": "tests.support.ink:Ink", "options": {"seconds": 0.3}}]},
    "trainers": {"count": 1},
}


def aligns(directory: Path, base: Path, **kind: Any) -> str:
    """Four updates with a checkpoint after each."""
    directory.mkdir()
    settings = tiny_settings(
        directory,
        base,
        **PLAIN,
        model={"lora": LORA | kind},
        samplers={"count": 1},
        training={"updates": 4, "checkpoint_every": 1, "dry_batch": False},
        evaluation={"num_prompts": 2},
        tracking={"preview_prompts": []},
    )
    return str(settings)


def handed_out(directory: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(directory / "runs/tiny/adapter/pytorch_lora_weights.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_after_a_dead_trainer_and_a_dead_machine_it_ends_with_the_same_bits(
    kind: str, tiny_base: Path, tmp_path: Path
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    with AlignProcess(aligns(whole, tiny_base, **KINDS[kind])) as run:
        run.finish()
    settings = aligns(killed, tiny_base, **KINDS[kind])
    with AlignProcess(settings) as run:
        run.until("update 2/4")
        run.kill("RayTrainWorker")
        run.until("update 3/4")
        run.kill_everything()
    with AlignProcess(settings) as run:
        assert "update 1/4" not in run.finish()
    for read in (final_adapter, handed_out):
        expected, found = read(whole), read(killed)
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in expected)
    magnitudes = [name for name in final_adapter(whole) if "magnitude" in name]
    assert bool(magnitudes) == ("dora" in kind)
