from pathlib import Path

import pytest
import torch

import sdo_ray.zoo
from rewards import create
from rewards.fitting.images import FLAT, GLOSSY, read_images

LEARNED = ("preference", "alignment", "heldout_preference", "heldout_alignment")


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def table():
    return Path(sdo_ray.zoo.__file__).parent / "data" / "emoji.parquet"


@pytest.fixture(scope="session")
def heldout(table):
    return read_images(table, "heldout")


@pytest.fixture(scope="session")
def pairs(heldout):
    """24 unseen concepts: glossy and flat images [24, 3, 64, 64], and their labels."""
    chosen = heldout.style_pairs()[::10][:24]
    assert {heldout.styles[i] for i in chosen[:, 0]} == {GLOSSY}
    assert {heldout.styles[i] for i in chosen[:, 1]} == {FLAT}
    return heldout.images[chosen[:, 0]], heldout.images[chosen[:, 1]], [heldout.labels[i] for i in chosen[:, 0]]


@pytest.fixture(scope="session")
def learned():
    """The learned rewards, loaded once."""
    return {name: create(name) for name in LEARNED}
