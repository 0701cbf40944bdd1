"""Variables that a job gets: names and references, never a secret, as Ray keeps and shows a job's environment."""

from __future__ import annotations

import os
from collections.abc import Sequence

from sdo_ray.secrets import kind_of_secret
from sdo_ray.settings import SettingsError


def job_environment(given: Sequence[str]) -> dict[str, str]:
    """The environment variables of a job.

    Args:
        given: NAME, for a variable that is set here, or NAME=VALUE, such as the path of a secret file on the nodes.

    Raises:
        SettingsError: one is not set here, or holds a secret; its value is not shown.
    """
    problems, variables = [], {}
    for item in given:
        name, equals, value = item.partition("=")
        if not equals and name not in os.environ:
            problems.append(f"--env {name}: there is no such variable here; set it, or give {name}=VALUE.")
            continue
        value = value if equals else os.environ[name]
        if kind := kind_of_secret(name, value):
            problems.append(
                f"--env {name}: holds {kind}, and Ray keeps a job's environment and shows it to who has the cluster's "
                "token. Keep the secret in a file on the nodes and pass its path: MLFLOW_TRACKING_PASSWORD_FILE, "
                "HF_TOKEN_PATH, AWS_SHARED_CREDENTIALS_FILE."
            )
            continue
        variables[name] = value
    if problems:
        raise SettingsError(*problems)
    return variables
