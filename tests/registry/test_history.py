"""How a registered model was trained, from its MLflow run."""

import mlflow
from mlflow.entities import Metric, Param

from sdo_ray.registry.history import History, history_of_version
from sdo_ray.registry.versions import RegisteredVersion


def version(run_id: str | None) -> RegisteredVersion:
    return RegisteredVersion("tiny", 1, "0" * 64, run_id, {})


def test_rewards_and_curves(uri: str) -> None:
    client = mlflow.MlflowClient(uri, uri)
    run_id = client.create_run(client.create_experiment("history")).info.run_id
    params = {
        "rewards.terms.0.name": "preference",
        "rewards.terms.0.weight": "1.0",
        "rewards.terms.0.options.weight": "thin",  # a reward's own option
        "rewards.terms.1.name": "m:Watched",
        "rewards.terms.1.weight": "0.0",
        "rewards.normalize": "False",
    }
    metrics = [
        Metric(f"{name}/{part}", value + update, 0, update)
        for update in (1, 2)
        for name, value in (("reward", 10.0), ("score/preference", 20.0))
        for part in ("mean", "std")
    ]
    client.log_batch(run_id, metrics, [Param(key, value) for key, value in params.items()])
    assert history_of_version(version(run_id), uri) == History(
        frozenset({"preference"}),
        {"reward": [(1, 11.0, 11.0), (2, 12.0, 12.0)], "preference": [(1, 21.0, 21.0), (2, 22.0, 22.0)]},
    )


def test_what_is_not_known(uri: str) -> None:
    assert history_of_version(version(None), uri) is None
    assert history_of_version(version("0" * 32), uri) is None  # the run was deleted
    client = mlflow.MlflowClient(uri, uri)
    other = client.create_run(client.create_experiment("no alignment")).info.run_id
    assert history_of_version(version(other), uri) is None
