"""How an aligned model was trained: the rewards that it learned from, and how their scores went."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from sdo_ray.registry.versions import RegisteredVersion
from sdo_ray.storage import RunDirectory
from sdo_ray.training.standing import progress

REWARD = "reward"
"""Name of the curve of the mixed reward."""

Curve = list[tuple[int, float, float]]
"""(number of the update from 1, mean over its samples, standard deviation)."""


@dataclass(frozen=True)
class History:
    """Of one training run."""

    learned: frozenset[str]
    """Names of the rewards with a weight."""
    curves: Mapping[str, Curve] = field(default_factory=dict)
    """`REWARD`, and the names of all rewards."""


def history_of_run(run: RunDirectory) -> History:
    """From the directory of a run of `sdo align`, its settings and the reports in its last checkpoint."""
    terms = run.read_json("settings.json")["rewards"]["terms"]
    curves: dict[str, Curve] = {}
    for report in progress(run)[1]:
        for name, spread in {REWARD: report.reward, **report.scores}.items():
            if spread.mean is not None and spread.std is not None:
                curves.setdefault(name, []).append((report.update + 1, spread.mean, spread.std))
    return History(frozenset(term["name"] for term in terms if term["weight"]), curves)


def history_of_version(version: RegisteredVersion, tracking_uri: str) -> History | None:
    """From the MLflow run that registered a version; None if there is none, or it is no alignment."""
    if version.run_id is None:
        return None
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
    try:
        data = client.get_run(version.run_id).data
    except MlflowException:  # the run was deleted
        return None
    weights = {
        data.params[key.replace(".weight", ".name")]: float(value)
        for key, value in data.params.items()
        if re.fullmatch(r"rewards\.terms\.\d+\.weight", key)  # and not a reward's option of that name
    }
    if not weights:
        return None
    curves = {}
    for name in (REWARD, *weights):
        key = REWARD if name == REWARD else f"score/{name}"
        means, deviations = (
            {metric.step: metric.value for metric in client.get_metric_history(version.run_id, f"{key}/{part}")}
            for part in ("mean", "std")
        )
        curves[name] = [(step, means[step], deviations[step]) for step in sorted(means.keys() & deviations.keys())]
    learned = frozenset(name for name, weight in weights.items() if weight)
    return History(learned, {name: curve for name, curve in curves.items() if curve})
