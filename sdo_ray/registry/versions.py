"""Models in MLflow's registry: what a reference names, and its files on this machine.

A registered version keeps these files, and MLflow's own around them:

    artifacts/pipeline/     a whole pipeline in diffusers format; absent if the base is a hub model that is only named
    artifacts/adapter/      `pytorch_lora_weights.safetensors`, for `load_lora_weights`; absent if there is no adapter
    artifacts/recipe.json   how its images are made: steps, guidance, precision, and the named base
"""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sdo_ray.models.quiet import quiet_libraries
from sdo_ray.models.reference import Reference
from sdo_ray.registry.recipe import Recipe, read_recipe
from sdo_ray.settings import Problem, SettingsError
from sdo_ray.tracking.provenance import fingerprint
from sdo_ray.tracking.server import without_password

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

SCHEME = "models:/"
CHAMPION, PREVIOUS = "champion", "previous"
"""Aliases: the version that is served, and the one before it."""

PIPELINE, ADAPTER = "pipeline", "adapter"
"""Names of the two directories."""

SHA256, WHOLE_SHA256 = "sdo.sha256", "sdo.model_sha256"
"""Tags of a version: the fingerprint of its files, and that of the whole logged model, MLflow's files and the program
that serves it included; versions of 0.1.0 have no such one."""


@dataclass(frozen=True)
class RegisteredVersion:
    """One version of a registered model; it never changes, while an alias moves."""

    name: str
    """The registered model's name."""
    version: int
    """Its number."""
    sha256: str
    """Fingerprint of its files."""
    run_id: str | None
    """The MLflow run that made it."""
    tags: dict[str, str]
    """All tags."""

    @property
    def reference(self) -> str:
        """`models:/NAME/VERSION`."""
        return f"{SCHEME}{self.name}/{self.version}"


def is_registered(reference: str) -> bool:
    """Whether a model's reference names one in the registry."""
    return reference.startswith(SCHEME)


def find_version(reference: str, tracking_uri: str) -> RegisteredVersion:
    """The version that `models:/NAME/VERSION` or, now, `models:/NAME@ALIAS` names.

    Whoever works with an alias for longer than one call asks once and goes on with the `reference` of what came back.

    Args:
        reference: the one or the other.
        tracking_uri: the MLflow server.

    Raises:
        SettingsError: it is neither, there is no such model, version or alias, or `sdo align` did not register it.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    name, number, alias = _parse(reference)
    client = MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
    try:
        found = client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, number)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "PERMISSION_DENIED"):
            raise
        cause = " ".join(error.message.split())
        got = f"{reference!r} is not in the registry at {without_password(tracking_uri)}: {cause}"
        fix = "correct the name, or register a model with tracking.register_as of `sdo align`"
        raise SettingsError(Problem("", got, fix=fix)) from None
    return _known(found)


def resolve_model(reference: str, tracking_uri: str) -> Path:
    """The files of a registered model on this machine: downloaded once, checked, and kept in a cache.

    Args:
        reference: `models:/NAME/VERSION` or `models:/NAME@ALIAS`.
        tracking_uri: the MLflow server.

    Returns:
        A directory with a complete diffusers pipeline, which `load_pipeline(reference_of(path))` and
        `DiffusionPipeline.from_pretrained(path)` take. An adapter is not merged in but lies beside it:
        `adapter_beside(path)`, for `load_adapter`. Leave the directory as it is; others use it too.

    Raises:
        SettingsError: see `find_version`; or the files are not those that were registered, or the base model that they
            name cannot be fetched from the hub.
    """
    version = find_version(reference, tracking_uri)
    files = cache() / version.sha256
    if files.is_dir():
        if (found := fingerprint(str(files))) != version.sha256:
            got = f"{version.reference}: its files in {files} have the fingerprint {found}, and not their name"
            raise SettingsError(Problem("", got, "they were changed or damaged, so they are not used", "delete them"))
    else:
        files.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=files.parent, prefix=".part-") as part:
            downloaded = _download(version, tracking_uri, Path(part))
            if (found := fingerprint(str(downloaded))) != version.sha256:
                got = (
                    f"{version.reference}: the files downloaded have the fingerprint {found}, and {version.sha256} was "
                    "registered"
                )
                legal = "they were changed or damaged, so they are not used"
                raise SettingsError(Problem("", got, legal, "name another version"))
            _move(downloaded, files)
    _provide_base(files)
    return files / PIPELINE


def reference_of(pipeline: Path) -> str:
    """What `load_pipeline` takes to load a pipeline that `resolve_model` returned: its weights may be of a variant."""
    return str(Reference(str(pipeline), variant=recipe_beside(pipeline).variant))


def adapter_beside(pipeline: Path) -> Path | None:
    """The adapter that belongs to a pipeline that `resolve_model` returned, if there is one."""
    adapter = pipeline.parent / ADAPTER
    return adapter if adapter.is_dir() else None


def recipe_beside(pipeline: Path) -> Recipe:
    """How the images of a model that `resolve_model` returned are made."""
    return read_recipe(pipeline.parent)


def fetch_base(base: str, revision: str, variant: str | None = None) -> Path:
    """A hub model's files on this machine, weights as safetensors only.

    Raises:
        SettingsError: they cannot be fetched.
    """
    from diffusers import DiffusionPipeline

    try:
        with quiet_libraries():
            return Path(DiffusionPipeline.download(base, revision=revision, variant=variant, use_safetensors=True))
    except OSError as error:
        cause = " ".join(str(error).split())[:300]
        got = f"the base model {base!r}, revision {revision}, cannot be fetched from the hub: {cause}"
        raise SettingsError(Problem("", got, fix="check the network or HF_TOKEN")) from None


def cache() -> Path:
    """Where downloaded models are kept, by fingerprint: `sdo-ray/models` in XDG_CACHE_HOME or `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "sdo-ray" / "models"


def _parse(reference: str) -> tuple[str, str, str | None]:
    """Name, version and alias; one of the last two is empty."""
    match = re.fullmatch(rf"{SCHEME}(?P<name>[^/:@]+)(?:/(?P<version>\d+)|@(?P<alias>[\w.-]+))", reference)
    if match is None:
        legal = f"a registered model is `{SCHEME}NAME/VERSION` or `{SCHEME}NAME@ALIAS`"
        fix = f"name one, such as `{SCHEME}emoji-glossy@{CHAMPION}`"
        raise SettingsError(Problem("", f"got {reference!r}", legal, fix))
    return match["name"], match["version"], match["alias"]


def _known(found: ModelVersion) -> RegisteredVersion:
    if SHA256 not in found.tags:
        got = f"{SCHEME}{found.name}/{found.version} was not registered by `sdo align`: it has no tag {SHA256}"
        raise SettingsError(Problem("", got, fix="name another version"))
    if not re.fullmatch(r"[0-9a-f]{64}", found.tags[SHA256]):  # it names a directory of the cache
        raise SettingsError(
            Problem(
                "",
                f"{SCHEME}{found.name}/{found.version}: the tag {SHA256} is {found.tags[SHA256]!r}, which is no "
                "SHA-256; it was changed since `sdo align` wrote it",
                fix="name another version",
            )
        )
    return RegisteredVersion(found.name, int(found.version), found.tags[SHA256], found.run_id or None, dict(found.tags))


def _download(version: RegisteredVersion, tracking_uri: str, directory: Path) -> Path:
    import mlflow.artifacts
    from mlflow import MlflowClient

    # `models:/` URIs would be looked up on whatever server the process has as its default.
    client = MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
    place = client.get_model_version_download_uri(version.name, str(version.version))
    return Path(
        mlflow.artifacts.download_artifacts(f"{place}/artifacts", dst_path=str(directory), tracking_uri=tracking_uri)
    )


def _provide_base(files: Path) -> None:
    """Put the hub model that is only named where a copied one would be, unless it is there and still in the cache."""
    recipe, pipeline = read_recipe(files), files / PIPELINE
    if recipe.base is None or recipe.revision is None or pipeline.exists():
        return
    base = fetch_base(recipe.base, recipe.revision, recipe.variant)
    with tempfile.TemporaryDirectory(dir=files, prefix=".part-") as part:
        link = Path(part) / PIPELINE
        link.symlink_to(base, target_is_directory=True)
        link.replace(pipeline)


def _move(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except OSError:
        if not target.is_dir():  # another process was faster with the same files
            raise
