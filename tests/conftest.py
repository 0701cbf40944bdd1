import os
from pathlib import Path

# Before torch is there, and for the processes that tests start: on AMD's processors MKL's sums depend on where in
# memory the numbers lie, and images are compared to the bit.
os.environ.setdefault("MKL_CBWR", "COMPATIBLE")

import pytest
import torch

from tests.backprop.tiny import stable_diffusion
from tests.support.installed import installed, wheel  # noqa: F401


def pytest_configure() -> None:
    # Images are compared to the bit, and torch's sums depend on the number of threads.
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny StableDiffusionPipeline with random weights, as a directory in diffusers format."""
    pipeline = stable_diffusion()
    pipeline.unload_lora_weights()
    directory = tmp_path_factory.mktemp("tiny-sd")
    pipeline.save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def sdxl_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny StableDiffusionXLPipeline as published: its autoencoder is turned to float32 for its decoding."""
    from tests.support.sdxl import sdxl

    pipeline = sdxl(torch.float32, force_upcast=True)
    pipeline.unload_lora_weights()
    directory = tmp_path_factory.mktemp("tiny-sdxl")
    pipeline.save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database file, which MLflow takes seconds to make."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture(scope="session")
def mlflow_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with its tables, which take seconds to make, to be copied."""
    from mlflow import MlflowClient

    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def registry_uri(mlflow_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A registry of the test's own with the model `glossy`, versions 1 to 3; MLFLOW_TRACKING_URI names it."""
    from tests.support.registry import registered

    (tmp_path / "mlflow.db").write_bytes(mlflow_database.read_bytes())
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(tmp_path)  # where MLflow keeps the runs' files
    registered(uri)
    return uri
