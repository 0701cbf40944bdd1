"""Are a version's files those that were registered?"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from sdo_ray.registry.versions import WHOLE_SHA256, RegisteredVersion
from sdo_ray.settings import Problem, SettingsError
from sdo_ray.tracking.provenance import SUFFIXES, combined, file_hash

ARTIFACTS = "artifacts"
"""The directory of the logged model that holds the version's own files."""


def check_files(version: RegisteredVersion, tracking_uri: str) -> None:
    """Read every file of a version where it is kept, one at a time, and compare with what was noted at registration.

    Args:
        version: in the registry.
        tracking_uri: the MLflow server.

    Raises:
        SettingsError: they were changed or damaged, or are gone.
    """
    hashes = dict(_hashes(version, tracking_uri))
    own = {
        str(PurePosixPath(name).relative_to(ARTIFACTS)): found
        for name, found in hashes.items()
        if PurePosixPath(name).parts[0] == ARTIFACTS and PurePosixPath(name).suffix in SUFFIXES
    }
    checks = {"files": (combined(own), version.sha256)}
    if (whole := version.tags.get(WHOLE_SHA256)) is not None:
        checks["logged model"] = (combined(hashes), whole)
    for what, (found, registered) in checks.items():
        if found != registered:
            raise SettingsError(
                Problem(
                    "",
                    f"{version.reference}: its {what} in the registry have the fingerprint {found[:12]}, and "
                    f"{registered[:12]} was registered",
                    "they were changed, damaged or removed since",
                    "register the model again",
                )
            )


def _hashes(version: RegisteredVersion, tracking_uri: str) -> Iterator[tuple[str, bytes]]:
    """Path in the logged model -> sha256."""
    import mlflow.artifacts
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
    place = client.get_model_version_download_uri(version.name, str(version.version))
    directories = [""]
    while directories:
        below = f"{place}/{directories.pop()}".rstrip("/")
        for found in mlflow.artifacts.list_artifacts(artifact_uri=below, tracking_uri=tracking_uri) or ():
            name = str(PurePosixPath(below.removeprefix(place).lstrip("/")) / PurePosixPath(found.path).name)
            if found.is_dir:
                directories.append(name)
                continue
            with tempfile.TemporaryDirectory() as temporary:
                local = mlflow.artifacts.download_artifacts(
                    artifact_uri=f"{place}/{name}", dst_path=temporary, tracking_uri=tracking_uri
                )
                yield name, file_hash(Path(local))
