"""Registered versions and evaluations of them, for tests of promotion: real MLflow, made-up scores."""

import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pyarrow as pa
import yaml

from sdo_ray.evaluation.result import SHA256_TAG, Evaluation, evaluation_sha256, write_evaluation
from sdo_ray.registry.versions import SHA256, WHOLE_SHA256
from sdo_ray.storage import RunDirectory
from sdo_ray.tracking.provenance import combined

MODEL = "glossy"


def registered(uri: str, name: str = MODEL, versions: int = 3) -> mlflow.MlflowClient:
    """A registered model with versions 1 to `versions`, each with a run of its own and a file."""
    client = mlflow.MlflowClient(uri, uri)
    experiment = client.get_experiment_by_name("promotion")
    experiment_id = experiment.experiment_id if experiment else client.create_experiment("promotion")
    client.create_registered_model(name)
    for version in range(1, versions + 1):
        run = client.create_run(experiment_id)
        files = {"artifacts/recipe.json": _recipe(name, version), "MLmodel": b"flavors: {}"}
        with tempfile.TemporaryDirectory() as temporary:
            for path, content in files.items():
                (Path(temporary) / path).parent.mkdir(exist_ok=True)
                (Path(temporary) / path).write_bytes(content)
            client.log_artifacts(run.info.run_id, temporary, "model")
        tags = {SHA256: sha256_of(name, version), WHOLE_SHA256: _combined(files)}
        client.create_model_version(name, f"{run.info.artifact_uri}/model", run.info.run_id, tags)
    return client


def sha256_of(model: str, version: int) -> str:
    """The fingerprint of a version's file."""
    return _combined({"recipe.json": _recipe(model, version)})


def _recipe(model: str, version: int) -> bytes:
    return f'{{"model": "{model}", "version": {version}}}'.encode()


def _combined(files: Mapping[str, bytes]) -> str:
    return combined({path: hashlib.sha256(content).digest() for path, content in files.items()})


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
    known = {"sha256": {"candidate": sha256_of(model, candidate)}}
    return Evaluation("evaluated", models, pa.table(columns), set_metrics or {}, known | dict(details or {}))


def promotion_settings(
    directory: Path, it: Evaluation, *rules: str, model: str = MODEL, uri: str | None = None, **changes: Any
) -> Path:
    """Write an evaluation as `sdo evaluate` does, and the settings of its promotion; returns their file.

    Args:
        directory: for both.
        it: the evaluation.
        rules: of the promotion.
        model: the registered model.
        uri: the MLflow server; that of the environment if not given.
        changes: of the promotion's settings.
    """
    # Said, because a client that is told none takes what another test has set in this process.
    uri = uri or os.environ["MLFLOW_TRACKING_URI"]
    client, run = mlflow.MlflowClient(uri, uri), RunDirectory(str(directory / "runs"), it.name)
    experiment = client.get_experiment_by_name("evaluations")
    experiment_id = experiment.experiment_id if experiment else client.create_experiment("evaluations")
    run_id = client.create_run(experiment_id).info.run_id
    write_evaluation(run, replace(it, details={**it.details, "mlflow_run": run_id}))
    client.set_tag(run_id, SHA256_TAG, evaluation_sha256(run))
    settings = {
        "evaluation": {"name": it.name, "storage": str(directory / "runs")},
        "promotion": {"model": model, "rules": list(rules), "lock_seconds": 60.0} | changes,
    }
    path = directory / "promote.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path
