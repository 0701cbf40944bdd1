"""Black boxes that look at pixels: what is read, and what is safe."""

from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from rewards import create
from rewards.ocr import agreement, wanted_text
from rewards.registry import RewardError, check
from rewards.safety import prepared
from rewards.scoring import score

from .tiny.onnx import save_classifier


def test_what_is_written_is_read():
    font = ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), 40)
    image = Image.new("RGB", (320, 120), "white")
    ImageDraw.Draw(image).text((20, 30), "Hello World", fill="black", font=font)
    written = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    images = torch.stack([written, written, written, torch.ones_like(written)])
    prompts = ['a sign that says "hello world"', "it says “help world”", "a sign", '"hello"']
    found = score(create("ocr"), images, prompts).tolist()
    assert found[0] == 1
    assert found[1] == pytest.approx(1 - 2 / 9)
    assert np.isnan(found[2])
    assert found[3] == 0


@pytest.mark.parametrize(
    ("wanted", "found", "expected"),
    [
        ("open", "weareopennow", 1),
        ("open", "oven", 0.75),
        ("open", "", 0),
        ("open", "somethingelse!", 0),
        ("a", "b", 0),
    ],
)
def test_agreement_of_texts(wanted, found, expected):
    assert agreement(wanted, found) == expected


def test_text_in_quotes():
    assert wanted_text('a "Blue  Sky" and "more"') == "bluesky"
    assert wanted_text("no quotes") == wanted_text('empty ""') == ""
    with pytest.raises(RewardError, match="1 have none, the first is 'a sign'"):
        check("ocr", {}, ['"open"', "a sign"])


def test_safety_sees_pixels_as_its_network_was_trained(tmp_path):
    """Blue first, less the mean; the tiny network is linear in the mean colour."""
    pixels = np.full((30, 40, 3), (200, 100, 50), dtype=np.uint8)
    assert prepared(pixels).mean((0, 1, 2)).tolist() == pytest.approx([50 - 104, 100 - 117, 200 - 123], abs=1.5)
    reward = create("safety", weights=save_classifier(tmp_path / "tiny.onnx"))
    found = score(reward, torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255, [""]).item()
    logits = torch.tensor([-54.0, -17, 77]) @ torch.tensor([[0.02, -0.01], [-0.01, 0.03], [0.015, 0.01]])
    assert found == pytest.approx(logits.softmax(0)[0].item(), abs=0.02)
