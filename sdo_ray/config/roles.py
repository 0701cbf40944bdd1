"""What the models of an evaluation are: found, checked, and ready to be loaded by any worker."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from rewards.modality import Made
from sdo_ray.config.calls import check_inputs, check_options, check_pipeline, check_types
from sdo_ray.config.run import FILE as SETTINGS
from sdo_ray.config.run import model_of
from sdo_ray.config.served import check_served
from sdo_ray.evaluation.models import AdaptedModel, ModelSource, WholeModel
from sdo_ray.evaluation.outcome import read_outcome
from sdo_ray.evaluation.result import BASE, CANDIDATE, CHAMPION
from sdo_ray.evaluation.settings import ModelChoice, ModelsSettings
from sdo_ray.media.modality import made_of
from sdo_ray.models.adapter_file import FILE as ADAPTER_FILE
from sdo_ray.models.adapter_file import adapter_file
from sdo_ray.models.export import ADAPTER, MODEL, product
from sdo_ray.models.files import check_files, pinned
from sdo_ray.models.load import ZOO, check_base
from sdo_ray.models.reference import Reference, parse
from sdo_ray.models.settings import ModelSettings
from sdo_ray.registry.base_model import base_model_sha256
from sdo_ray.registry.history import History, history_of_run, history_of_version
from sdo_ray.registry.registered_model import RegisteredModel
from sdo_ray.registry.versions import (
    find_version,
    is_registered,
    recipe_beside,
    reference_of,
    resolve_model,
)
from sdo_ray.rollout.preparation import check_decoding
from sdo_ray.rollout.settings import SamplingSettings
from sdo_ray.settings import Problem, Problems, SettingsError, at, under
from sdo_ray.storage import RunDirectory
from sdo_ray.tracking.provenance import fingerprint

ROLES = "models.json"
"""The file of an evaluation that says which models it is of."""


@dataclass(frozen=True)
class Role:
    """One of the models."""

    where: str
    """Where it is, an alias replaced by the version it names now."""
    sha256: str
    """Of its files: equal models, equal hash."""
    source: ModelSource
    history: History | None = None
    """How it was trained, where that is known."""
    made: Made = field(default_factory=Made)
    """What it makes."""
    reference: str = ""
    """What its pipeline is loaded from, without an adapter."""


def find_roles(
    models: ModelsSettings, sampling: SamplingSettings, tracking_uri: str, inputs: Collection[str] = ()
) -> dict[str, Role]:
    """Role -> model, the base first.

    Args:
        models: as they were named.
        sampling: how their pipelines are called.
        inputs: arguments of the call that come with each prompt.
        tracking_uri: the MLflow server, for models of its registry.

    Raises:
        SettingsError: a model is not there, is not finished, or cannot be called so; one line a problem.
    """
    choices = {BASE: models.base, CANDIDATE: models.candidate}
    if models.champion is not None:
        choices[CHAMPION] = models.champion
    found = {}
    with Problems() as problems:
        for role, choice in choices.items():
            whole = ModelChoice(model=choice.model or models.base.model, adapter=choice.adapter)
            with problems.of():
                with at(f"models.{role}"):
                    role_of, base = _find(whole, models, tracking_uri)
                    pipeline = check_pipeline(base)
                    found[role] = replace(role_of, made=made_of(pipeline, base), reference=base)
                with under("models"):
                    check_types(base, models.dtypes)
                check_options(pipeline, sampling)
                check_decoding(base, sampling.decode)
                with at("prompts.inputs"):
                    check_inputs(pipeline, inputs, sampling)
                if role == CANDIDATE and whole.model is not None and is_registered(whole.model):
                    recipe = recipe_beside(resolve_model(found[role].where, tracking_uri))
                    check_served(found[role].where, recipe, sampling)
    return found


def check_roles(run: RunDirectory, roles: Mapping[str, Role]) -> None:
    """See that an evaluation that was started before goes on with the same models.

    Raises:
        SettingsError: a path, alias or hub id means another model now.
    """
    known, given = run.read_json(ROLES), _identities(roles)
    if known is None:
        return
    if changed := [name for name in given if known.get(name) != given[name]]:
        raise SettingsError(
            *(
                Problem(
                    f"models.{name}",
                    f"the evaluation was started with {known[name]['where']}, sha256 {known[name]['sha256'][:12]}; now "
                    f"it is {given[name]['where']}, sha256 {given[name]['sha256'][:12]}",
                )
                for name in changed
            ),
            Problem("run.name", f"{run.uri} has images of other models", fix="give this evaluation another name"),
        )


def keep_roles(run: RunDirectory, roles: Mapping[str, Role]) -> None:
    """Bind the evaluation to these models; called once nothing can be refused any more."""
    run.write_json(ROLES, _identities(roles))


def _identities(roles: Mapping[str, Role]) -> dict[str, dict[str, str]]:
    return {name: {"where": role.where, "sha256": role.sha256} for name, role in roles.items()}


def _find(choice: ModelChoice, models: ModelsSettings, tracking_uri: str) -> tuple[Role, str]:
    """The model, and where the configuration of its pipeline is."""
    assert choice.model is not None
    if is_registered(choice.model):
        return _registered(choice, models, tracking_uri)
    if (run := run_directory(choice.model)) is not None:
        return _of_run(choice, run, models)
    check_base(choice.model)
    model = pinned(choice.model)
    check_pipeline(model)
    check_files(model)
    sha256 = base_model_sha256(model)
    if choice.adapter is None:
        return Role(model, sha256, WholeModel(model, models.dtype, models.dtypes)), model
    adapter = adapter_file(choice.adapter).read_bytes()
    return _adapted(f"{model} + {choice.adapter}", model, sha256, adapter, models), model


def _registered(choice: ModelChoice, models: ModelsSettings, tracking_uri: str) -> tuple[Role, str]:
    assert choice.model is not None
    if choice.adapter is not None:
        got = f"{choice.model!r} is registered with what belongs to it"
        raise SettingsError(Problem("adapter", got, fix="name no adapter on it"))
    version = find_version(choice.model, tracking_uri)
    pipeline = reference_of(resolve_model(version.reference, tracking_uri))
    source = RegisteredModel(version.reference, tracking_uri, models.dtype, models.dtypes)
    return Role(version.reference, version.sha256, source, history_of_version(version, tracking_uri)), pipeline


def run_directory(model: str) -> RunDirectory | None:
    """The directory of an alignment run, finished or not; None if it is something else."""
    if model.startswith(ZOO):
        return None
    if "://" not in model and not Path(model).expanduser().is_dir():
        return None
    where = model if "://" in model else str(Path(model).expanduser().resolve())
    storage, _, name = where.rstrip("/").rpartition("/")
    run = RunDirectory(storage, name)
    return run if run.read_json(SETTINGS) is not None else None


def _of_run(choice: ModelChoice, run: RunDirectory, models: ModelsSettings) -> tuple[Role, str]:
    if choice.adapter is not None:
        got = f"{choice.model!r} is a run, which has its own result"
        raise SettingsError(Problem("adapter", got, fix="name no adapter on it"))
    if read_outcome(run) is None:
        got = f"{choice.model!r} is a run of `sdo align` that is not finished"
        raise SettingsError(Problem("model", got, fix="run it to its end"))
    model = model_of(ModelSettings.model_validate(run.read_json(SETTINGS)["model"]), run)
    if product(model) == MODEL:
        directory = str(Reference(run.place(MODEL), pipeline=parse(model.reference).pipeline))
        if not run.is_local:
            got = f"{run.place(MODEL)!r} is a complete model and not on a disk"
            raise SettingsError(Problem("model", got, fix="copy it there and name the copy"))
        check_pipeline(directory)
        source = WholeModel(directory, models.dtype, models.dtypes)
        return Role(run.uri, fingerprint(directory), source, history_of_run(run)), directory
    check_pipeline(model.reference)
    with run.filesystem.open_input_file(f"{run.path}/{ADAPTER}/{ADAPTER_FILE}") as file:
        adapter = file.readall()
    sha256 = base_model_sha256(model.reference)
    return replace(
        _adapted(run.uri, model.reference, sha256, adapter, models), history=history_of_run(run)
    ), model.reference


def _adapted(where: str, base: str, sha256: str, adapter: bytes, models: ModelsSettings) -> Role:
    both = hashlib.sha256(f"{sha256} {hashlib.sha256(adapter).hexdigest()}".encode()).hexdigest()
    return Role(where, both, AdaptedModel(base, models.dtype, adapter, models.dtypes))
