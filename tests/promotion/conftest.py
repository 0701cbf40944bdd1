import mlflow
import pytest


@pytest.fixture
def uri(registry_uri: str) -> str:
    return registry_uri


@pytest.fixture
def client(uri: str) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(uri, uri)
