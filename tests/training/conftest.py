"""Engines in this process."""

import gc
from collections.abc import Iterator
from pathlib import Path

import deepspeed
import pytest
import torch.distributed


@pytest.fixture(scope="package", autouse=True)
def few_objects_to_collect() -> Iterator[None]:
    """DeepSpeed collects garbage often, which after thousands of tests in this process takes seconds each time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def group_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process is the group of workers."""
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "DS_ACCELERATOR": "cpu"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CXX", "/no/compiler")  # none is needed
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    yield
    deepspeed.comm.destroy_process_group()
