import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def parquet(tmp_path):
    """Six coloured squares; the last one transparent, which must come out white."""
    colours = {"red": (255, 0, 0, 255), "green": (0, 255, 0, 255), "blue": (0, 0, 255, 255), "black": (0, 0, 0, 255)}
    colours |= {"grey": (128, 128, 128, 255), "white": (9, 9, 9, 0)}
    encoded = []
    for colour in colours.values():
        file = io.BytesIO()
        Image.fromarray(np.full((16, 16, 4), colour, dtype=np.uint8)).save(file, format="PNG")
        encoded.append(file.getvalue())
    captions = [[name, f"a {name} square"] for name in colours]
    path = tmp_path / "squares.parquet"
    pq.write_table(pa.table({"picture": encoded, "texts": captions, "text": list(colours)}), path)
    return path
