"""Pictures and files of samples."""

import io
import math
import wave

import numpy as np
import pytest
import torch
from PIL import Image

from sdo_ray.media.files import FRAME_RATE, to_file
from sdo_ray.media.picture import HEIGHT, WIDTH, open_image, picture, to_png

RATE = 8000


def test_an_image_is_itself() -> None:
    x = torch.tensor([[[0.0, 1.0]], [[0.5, 0.25]], [[-1.0, 2.0]]])
    assert np.asarray(picture(x, "image")).tolist() == [[[0, 128, 0], [255, 64, 255]]]
    assert open_image(to_png(picture(x, "image"))).tobytes() == picture(x, "image").tobytes()


def test_a_video_is_its_frames_side_by_side() -> None:
    x = torch.linspace(0, 1, 24).reshape(24, 1, 1, 1).expand(24, 3, 4, 5)
    strip = np.asarray(picture(x, "video"))
    assert strip.shape == (4, 6 * 5, 3)
    shown = strip[0, ::5, 0].astype(int)
    assert (np.abs(shown - np.array([2, 6, 10, 14, 18, 22]) * 255 / 23) <= 1).all()


@pytest.mark.parametrize("hertz", [500, 1000, 3000])
def test_a_spectrogram_is_light_at_the_frequency_that_sounds(hertz: int) -> None:
    sound = torch.sin(2 * math.pi * hertz * torch.arange(RATE) / RATE)[None]
    column = np.asarray(picture(sound, "audio"))[:, WIDTH // 2, 0].astype(float)
    assert len(column) == HEIGHT
    assert abs(HEIGHT - 1 - column.argmax() - hertz / (RATE / 2) * HEIGHT) < 2
    assert column.max() > 240  # of 0 dB
    silent = np.asarray(picture(torch.zeros(1, RATE), "audio"))
    assert not silent.any()


def test_numbers_are_lines_or_greys() -> None:
    rising = np.asarray(picture(torch.linspace(-3, 5, 100)[None], "any"))
    dark = rising.min(axis=2) < 100
    assert dark[:, 5].nonzero()[0].mean() > HEIGHT - 10
    assert dark[:, WIDTH - 5].nonzero()[0].mean() < 10
    volume = torch.zeros(20, 2, 30)
    volume[0] = 1
    greys = np.asarray(picture(volume, "any"))
    assert greys[0, 0, 0] == 255
    assert greys[-1, 0, 0] == 0


@pytest.mark.parametrize(("shape", "modality"), [((3, 4), "any"), ((), "any"), ((1, 2), "audio"), ((2, 2, 2), "any")])
def test_what_is_not_finite_or_very_small_has_a_picture(shape: tuple[int, ...], modality: str) -> None:
    for value in (math.nan, math.inf, 0.0):
        assert picture(torch.full(shape, value), modality).size == (WIDTH, HEIGHT)


def test_a_file_of_a_video_plays_all_frames() -> None:
    x = torch.rand(7, 3, 16, 24)
    file = Image.open(io.BytesIO(to_file(x, "video")))
    assert (file.format, file.n_frames, file.size) == ("WEBP", 7, (24, 16))  # type: ignore[attr-defined]
    file.seek(1)
    file.load()
    assert file.info["duration"] == 1000 // FRAME_RATE


def test_a_file_of_a_sound() -> None:
    x = torch.stack([torch.linspace(-1, 1, 50), torch.full((50,), 7.0)])
    with wave.open(io.BytesIO(to_file(x, "audio", RATE))) as file:
        assert (file.getnchannels(), file.getframerate(), file.getsampwidth()) == (2, RATE, 2)
        heard = np.frombuffer(file.readframes(50), np.int16).reshape(50, 2)
    np.testing.assert_allclose(heard[:, 0] / 32767, x[0], atol=1e-4)
    assert (heard[:, 1] == 32767).all()  # cut off, not wrapped around


def test_a_file_of_numbers() -> None:
    x = torch.randn(2, 3, 4)
    np.testing.assert_array_equal(np.load(io.BytesIO(to_file(x, "any")), allow_pickle=False), x)
