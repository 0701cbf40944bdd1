"""A registered model on its way to a worker."""

import pytest

from sdo_ray.registry.registered_model import RegisteredModel

SECRET = "postgresql://ann:hunter2@db/mlflow"


@pytest.mark.parametrize(
    ("mine", "asked"), [(SECRET, SECRET), ("sqlite:///other.db", "postgresql://db/mlflow")], ids=["its own", "other"]
)
def test_a_database_s_password_does_not_travel(monkeypatch: pytest.MonkeyPatch, mine: str, asked: str) -> None:
    """The worker takes it from where it has its other secrets."""

    class Asked(Exception):
        pass

    def resolve(_: str, uri: str) -> None:
        raise Asked(uri)

    monkeypatch.setattr("sdo_ray.registry.registered_model.resolve_model", resolve)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mine)
    model = RegisteredModel("models:/glossy/1", SECRET, "float32")
    assert "hunter2" not in repr(model)
    with pytest.raises(Asked) as found:
        model.load("cpu")
    assert found.value.args == (asked,)
