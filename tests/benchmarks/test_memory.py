"""What an update holds, counted: by tensors that are alive, and on the meta device at published sizes."""

import sys

import pytest
import torch

from benchmarks import memory
from benchmarks.activations import GIB, parts_of
from sdo_ray.backprop.saved import saved_activations
from sdo_ray.sizing.alive import Alive
from sdo_ray.sizing.attention import fused_attention


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_what_is_alive_is_counted_once_and_no_longer(device: str) -> None:
    x = torch.ones(10, 10, device=device)
    with Alive() as alive:
        y = x + 1
        z = y.view(100)[3:]
        assert alive.now == y.nbytes
        w = y * 2
        del y, z
        assert alive.now == w.nbytes
    assert alive.most == 2 * x.nbytes


def test_an_update_in_two_phases_holds_less(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    size = ["--model", "sdxl", "--size", "tiny", "--steps", "2", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", ["memory", *size])
    memory.main()
    rows = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in capsys.readouterr().out.splitlines()[3:]}
    waiting, peak = ({name: float(cells[i]) for name, cells in rows.items()} for i in (4, 5))
    assert waiting["recompute"] < 0.1 * waiting["retain"]
    assert waiting["retain, blocks"] < 0.5 * waiting["retain"]
    assert peak["recompute, blocks"] < peak["recompute"] < peak["retain"]


def test_sdxl_at_1024_pixels_saves_less_than_four_gib_an_image() -> None:
    saved = {}
    for name, (part, call) in parts_of("sdxl", "bfloat16", "bfloat16").items():
        part.enable_gradient_checkpointing()
        with fused_attention(), saved_activations(part) as held:
            call()
            saved[name] = held.bytes / GIB
    assert saved["kept step"] < 1
    assert 1 < sum(saved.values()) < 4
