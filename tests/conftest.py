from pathlib import Path

import pytest
import torch

from tests.backprop.tiny import stable_diffusion


def pytest_configure() -> None:
    # Pictures are compared to the bit, and torch's sums depend on the number of threads.
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny StableDiffusionPipeline with random weights, as a directory in diffusers format."""
    pipeline = stable_diffusion()
    pipeline.unload_lora_weights()
    directory = tmp_path_factory.mktemp("tiny-sd")
    pipeline.save_pretrained(directory)
    return directory
