"""Videos and sounds on the page."""

import base64
import io

import torch
from PIL import Image

from sdo_ray.evaluation.report.embedding import data_uri, sound_uri
from sdo_ray.media.files import to_file


def test_a_video_plays_small() -> None:
    uri = data_uri(to_file(torch.rand(5, 3, 40, 80), "video"), 20)
    kind, _, content = uri.partition(",")
    assert kind == "data:image/webp;base64"
    shown = Image.open(io.BytesIO(base64.b64decode(content)))
    assert (shown.n_frames, shown.size) == (5, (20, 10))  # type: ignore[attr-defined]


def test_a_sound_is_there_as_it_is() -> None:
    file = to_file(torch.zeros(1, 10), "audio", 8000)
    uri = sound_uri(file)
    assert uri is not None
    assert base64.b64decode(uri.partition(",")[2]) == file
    assert sound_uri(None) is None
    assert sound_uri(to_file(torch.zeros(3), "any")) is None
