"""Registered versions and evaluations of them, for tests of promotion: real MLflow, made-up scores."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mlflow
import pyarrow as pa
import yaml

from sdo_ray.evaluation.result import Evaluation, write_evaluation
from sdo_ray.registry.versions import SHA256
from sdo_ray.storage import RunDirectory

MODEL = "glossy"


def registered(uri: str, name: str = MODEL, versions: int = 3) -> mlflow.MlflowClient:
    """A registered model with versions 1 to `versions`, each with a run of its own; they have tags but no files."""
    client = mlflow.MlflowClient(uri, uri)
    experiment = client.get_experiment_by_name("promotion")
    experiment_id = experiment.experiment_id if experiment else client.create_experiment("promotion")
    client.create_registered_model(name)
    for version in range(1, versions + 1):
        run = client.create_run(experiment_id)
        sha256 = hashlib.sha256(f"files of {name} {version}".encode()).hexdigest()
        client.create_model_version(name, f"{run.info.artifact_uri}/model", run.info.run_id, {SHA256: sha256})
    return client


def evaluation(
    candidate: int,
    champion: int | None = None,
    *,
    model: str = MODEL,
    prompts: Sequence[str] | None = None,
    set_metrics: Mapping[str, Mapping[str, float]] | None = None,
    details: Mapping[str, Any] | None = None,
    **scores: Sequence[float | None],
) -> Evaluation:
    """An evaluation of version `candidate`; scores are given as `base_quality=[...]`, and are 0 for other roles.
    Without `prompts`, there are as many as scores."""
    prompts = prompts or [str(i) for i in range(len(next(iter(scores.values()), "four")))]
    models = {"base": "zoo://emoji", "candidate": f"models:/{model}/{candidate}"}
    if champion is not None:
        models["champion"] = f"models:/{model}/{champion}"
    columns: dict[str, Any] = {
        "index": pa.array(range(len(prompts)), pa.int64()),
        "prompt": list(prompts),
        "category": pa.nulls(len(prompts), pa.string()),
    }
    metrics = dict.fromkeys(name.partition("_")[2] for name in scores)
    for role in models:
        columns[f"{role}.picture"] = [b"png"] * len(prompts)
        for metric in metrics:
            values = scores.get(f"{role}_{metric}", [0.0] * len(prompts))
            columns[f"{role}.{metric}"] = pa.array(values, pa.float64())
    return Evaluation("evaluated", models, pa.table(columns), set_metrics or {}, details or {})


def promotion_settings(directory: Path, it: Evaluation, *rules: str, model: str = MODEL, **changes: Any) -> Path:
    """Write an evaluation, and the settings of its promotion; returns their file."""
    write_evaluation(RunDirectory(str(directory / "runs"), it.name), it)
    settings = {
        "evaluation": {"name": it.name, "storage": str(directory / "runs")},
        "promotion": {"model": model, "rules": list(rules), "lock_seconds": 60.0} | changes,
    }
    path = directory / "promote.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path
