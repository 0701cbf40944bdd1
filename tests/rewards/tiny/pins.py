"""Pinned scores of two fixed images, by reward; `python -m tests.rewards.tiny.pins [NAME ...]` writes them anew."""

import json
import sys
import tempfile
from pathlib import Path

import torch

from rewards import create, spec_of
from rewards.scoring import score

from .cases import CASES

PINS = Path(__file__).parent / "pins.json"


def images_of(name: str) -> torch.Tensor:
    """What the reward judges, the same on every machine.

    Two images, float32 [2, 3, 24, 24], waves of other lengths in each channel; two videos of four of them that move,
    [2, 4, 3, 24, 24]; or two stereo sounds, [2, 2, 1728].
    """
    rows, columns = torch.meshgrid(torch.arange(24.0), torch.arange(24.0), indexing="ij")
    waves = [torch.sin(rows * (0.3 + 0.2 * i) + columns * (0.9 - 0.13 * i) + i) for i in range(6)]
    images = (0.5 + 0.45 * torch.stack(waves)).view(2, 3, 24, 24)
    match spec_of(name).modality:
        case "video":
            return torch.stack([images.roll(3 * number, -1) for number in range(4)], 1)
        case "audio":
            return (images - 0.5).reshape(2, 1, 1728).repeat(1, 2, 1)
    return images


def read_pins() -> dict[str, list[float]]:
    return json.loads(PINS.read_text())


def main(names: list[str]) -> None:
    pins = read_pins() if PINS.exists() else {}
    for name in names or CASES:
        case = CASES[name]
        with tempfile.TemporaryDirectory() as folder:
            reward = create(case.path or name, **case.options(Path(folder)))
            pins[name] = score(reward, images_of(name), list(case.prompts)).tolist()
    PINS.write_text(json.dumps({name: pins[name] for name in CASES}, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
