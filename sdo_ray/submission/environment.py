"""Variables that a job gets: names and references, never a secret, as Ray keeps and shows a job's environment."""

from __future__ import annotations

import os
from collections.abc import Sequence

from sdo_ray.secrets import kind_of_secret
from sdo_ray.settings import Problem, Problems


def job_environment(given: Sequence[str]) -> dict[str, str]:
    """The environment variables of a job.

    Args:
        given: NAME, for a variable that is set here, or NAME=VALUE, such as the path of a secret file on the nodes.

    Raises:
        SettingsError: one is not set here, or holds a secret; its value is not shown.
    """
    variables = {}
    with Problems() as problems:
        for item in given:
            name, equals, value = item.partition("=")
            setting = f"--env {name}"
            if not equals and name not in os.environ:
                problems.add(Problem(setting, "there is no such variable here", fix=f"set it, or give {name}=VALUE"))
                continue
            value = value if equals else os.environ[name]
            if kind := kind_of_secret(name, value):
                problems.add(
                    Problem(
                        setting,
                        f"holds {kind}, and Ray keeps a job's environment and shows it to who has the cluster's token",
                        fix="keep the secret in a file on the nodes and pass its path: MLFLOW_TRACKING_PASSWORD_FILE, "
                        "HF_TOKEN_PATH, AWS_SHARED_CREDENTIALS_FILE",
                    )
                )
                continue
            variables[name] = value
    return variables
