"""The cluster file is one that Ray takes."""

import json
import re
from importlib.metadata import version
from pathlib import Path

import jsonschema
import ray
import yaml

from tests.support.runs import REPOSITORY


def test_the_cluster_file_fits_rays_schema() -> None:
    schema = json.loads((Path(ray.__file__).parent / "autoscaler/ray-schema.json").read_text())
    cluster = yaml.safe_load((REPOSITORY / "infra/ray-cluster.yaml").read_text())
    jsonschema.validate(cluster, schema)


def test_the_cluster_keeps_authentication_on() -> None:
    cluster = yaml.safe_load((REPOSITORY / "infra/ray-cluster.yaml").read_text())
    starts = [c for part in ("head", "worker") for c in cluster[f"{part}_start_ray_commands"] if "ray start" in c]
    assert len(starts) == 2
    assert all(command.startswith("RAY_AUTH_MODE=token ") for command in starts)


def test_the_package_is_a_file_and_no_name_on_an_index() -> None:
    """Which may be anybody's."""
    cluster = yaml.safe_load((REPOSITORY / "infra/ray-cluster.yaml").read_text())
    (command,) = cluster["setup_commands"]
    mounted = {Path(place).name for place in cluster["file_mounts"]}
    wheel = re.search(r"[\w.-]+\.whl", command)
    assert wheel is not None
    assert wheel[0] in mounted
    assert f"sdo_ray-{version('sdo-ray')}-" in wheel[0]
