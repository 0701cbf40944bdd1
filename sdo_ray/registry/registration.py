"""From what a run hands out to a version in MLflow's registry that plain MLflow and plain diffusers load."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdo_ray.models.export import ADAPTER as EXPORTED_ADAPTER
from sdo_ray.models.export import BASE, MODEL
from sdo_ray.models.files import cached
from sdo_ray.models.load import resolve
from sdo_ray.models.reference import parse
from sdo_ray.registry.recipe import FILE as RECIPE
from sdo_ray.registry.recipe import Recipe, write_recipe
from sdo_ray.registry.versions import ADAPTER, PIPELINE, SCHEME, SHA256, WHOLE_SHA256, fetch_base
from sdo_ray.seeds import derive_seed
from sdo_ray.settings import Problem, SettingsError
from sdo_ray.tracking.provenance import SUFFIXES, combined, file_hash, fingerprint

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

SERVED_BY = Path(__file__).with_name("pyfunc_model.py")
"""The code that MLflow keeps with the model."""

NEEDED = ("mlflow", "torch", "diffusers", "transformers", "peft", "accelerate", "safetensors", "pandas", "pillow")
FOR_SOME = ("sentencepiece", "tiktoken", "ftfy")
"""Packages that the model needs where it is loaded: always, and those that tokenizers of some base models need."""

DESCRIPTION = """Aligned by sdo-ray. Without it, with `requirements.txt` of the model installed:

    mlflow.pyfunc.load_model("models:/{name}/{version}").predict([{{"prompt": "...", "seed": 0}}])

or, as plain diffusers files, `mlflow.artifacts.download_artifacts("models:/{name}/{version}/artifacts")`: {files}."""


@dataclass(frozen=True)
class Example:
    """An image that the model was evaluated by."""

    prompt: str
    seed: int
    """Of its noise: `torch.Generator("cpu").manual_seed(seed)`."""


def examples_of(prompts: Sequence[str], seed: int) -> list[Example]:
    """The first images of a run's held-out comparison.

    Args:
        prompts: all of its prompts, in order.
        seed: the run's.
    """
    return [Example(prompt, derive_seed(seed, "evaluation noise", i)) for i, prompt in enumerate(prompts[:4])]


def register_model(
    client: MlflowClient,
    run_id: str,
    name: str,
    directory: Path,
    base: str,
    recipe: Recipe,
    *,
    examples: Sequence[Example],
    provenance: dict[str, str],
    copy_base: bool = False,
) -> str:
    """Register the next version of `name`, complete with its base model or, if that is on the hub, its exact name.

    A run that died after this, before it could write down that it has, calls it again; so a version that the run has
    already made of the same files is the answer, and no other is created.

    Args:
        client: of the MLflow server, which becomes the process's default.
        run_id: the MLflow run that made the model.
        name: the registered model's name.
        directory: what `export_model` wrote.
        base: the base model's reference.
        recipe: how the images are made; `base` and `revision` are filled in here.
        examples: some images that it was evaluated by.
        provenance: tags of the version.
        copy_base: copy a hub model rather than name it. Others are always copied.

    Returns:
        `models:/NAME/VERSION`.

    Raises:
        SettingsError: the commit of a hub model that is to be named is not known here.
    """
    import mlflow

    mlflow.set_tracking_uri(client.tracking_uri)
    mlflow.set_registry_uri(client.tracking_uri)
    with tempfile.TemporaryDirectory() as temporary:
        files = Path(temporary) / "files"
        files.mkdir()
        recipe = _gather(files, directory, base, recipe, copy_base)
        sha256 = fingerprint(str(files))
        number = _already(client, run_id, name, sha256)
        if number is None:
            saved = Path(temporary) / "saved"
            model_id = _log(client, run_id, files, saved, recipe, examples)
            whole = {path.relative_to(saved).as_posix(): file_hash(path) for path in saved.rglob("*") if path.is_file()}
            tags = provenance | {SHA256: sha256, WHOLE_SHA256: combined(whole)}
            number = _create_version(client, run_id, name, model_id, tags)
    description = DESCRIPTION.format(name=name, version=number, files=_described(recipe, directory))
    client.update_model_version(name, number, description)
    return f"{SCHEME}{name}/{number}"


def requirements() -> list[str]:
    """The versions of this environment, pinned, that a registered model runs on."""
    pinned = []
    for package in (*NEEDED, *FOR_SOME):
        try:
            pinned.append(f"{package}=={version(package).partition('+')[0]}")
        except PackageNotFoundError:
            assert package in FOR_SOME, package
    return pinned


def _gather(files: Path, directory: Path, base: str, recipe: Recipe, copy_base: bool) -> Recipe:
    """Lay the version's files out; returns the completed recipe."""
    if (complete := directory / MODEL).is_dir() or (complete := directory / BASE).is_dir():
        shutil.copytree(complete, files / PIPELINE)
    else:
        reference = parse(base)
        recipe = replace(recipe, variant=reference.variant)
        if Path(resolve(base)).is_dir():
            copy_pipeline(Path(resolve(base)), files / PIPELINE)
        elif copy_base:
            copy_pipeline(fetch_base(reference.base, _revision(base), reference.variant), files / PIPELINE)
        else:
            recipe = replace(recipe, base=reference.base, revision=_revision(base))
    if (adapter := directory / EXPORTED_ADAPTER).is_dir():
        shutil.copytree(adapter, files / ADAPTER)
    write_recipe(files, recipe)
    return recipe


def _log(
    client: MlflowClient, run_id: str, files: Path, saved: Path, recipe: Recipe, examples: Sequence[Example]
) -> str:
    """Log the files as an MLflow model of the run; returns its id.

    `mlflow.pyfunc.log_model` would load the model here, and draw the examples, to see whether it can be served.
    """
    import mlflow.pyfunc
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    logged = client.create_logged_model(client.get_run(run_id).info.experiment_id, MODEL, source_run_id=run_id)
    mlflow.pyfunc.save_model(
        saved,
        python_model=str(SERVED_BY),
        artifacts={file.stem: str(file) for file in files.iterdir()},
        signature=_signature(recipe),
        # One without the images that the call takes would be none.
        input_example=None
        if recipe.inputs
        else [{"prompt": example.prompt, "seed": example.seed} for example in examples],
        pip_requirements=requirements(),
        mlflow_model=Model(logged.artifact_location, run_id, model_uuid=logged.model_id, model_id=logged.model_id),
    )
    client.log_model_artifacts(logged.model_id, str(saved))
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return logged.model_id


def copy_pipeline(source: Path, target: Path) -> None:
    """Copy what a pipeline's `model_index.json` names, and of that only `SUFFIXES`."""
    target.mkdir()
    index = json.loads((source / "model_index.json").read_text())
    shutil.copyfile(source / "model_index.json", target / "model_index.json")
    for component in index:
        for file in sorted((source / component).rglob("*")) if not component.startswith("_") else ():
            if file.suffix in SUFFIXES and file.is_file():
                copied = target / file.relative_to(source)
                copied.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copied)


def _revision(base: str) -> str:
    """The commit of a hub model that is in this machine's cache, and so was used."""
    directory = Path(cached(base))
    if not directory.is_dir():
        got = f"the base model {base!r} is not in the hub's cache on this machine"
        raise SettingsError(
            Problem("tracking.register_as", got, fix="load it here once, or copy it with copy_hub_base")
        )
    return directory.name


def _signature(recipe: Recipe) -> ModelSignature:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    parameters: dict[str, tuple[DataType, Any]] = {
        "num_inference_steps": (DataType.long, recipe.num_inference_steps),
        "guidance_scale": (DataType.double, recipe.guidance_scale),
        "batch_size": (DataType.long, recipe.batch_size),
    }
    if recipe.guidance_scale is None:
        del parameters["guidance_scale"]
    prompt, seed = ColSpec(DataType.string, "prompt"), ColSpec(DataType.long, "seed")
    kinds = {"number": DataType.double, "image": DataType.binary, "sound": DataType.binary, "text": DataType.string}
    beside = [ColSpec(kinds[kind], name) for name, kind in recipe.inputs.items()]
    return ModelSignature(
        inputs=Schema([prompt, *beside, ColSpec(DataType.long, "seed", required=False)]),
        outputs=Schema([prompt, seed, ColSpec(DataType.binary, "picture")]),
        params=ParamSchema([ParamSpec(key, kind, default) for key, (kind, default) in parameters.items()]),
    )


def _already(client: MlflowClient, run_id: str, name: str, sha256: str) -> str | None:
    """The number of the version that the run has made of these files, if it has."""
    for found in client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'"):
        if found.tags.get(SHA256) == sha256:
            return str(found.version)
    return None


def _create_version(client: MlflowClient, run_id: str, name: str, model_id: str, tags: dict[str, str]) -> str:
    """Create the next version of `name`, and `name` itself if need be; returns its number."""
    if not client.search_registered_models(f"name = '{name}'"):
        _create(client, name)
    created = client.create_model_version(name, f"models:/{model_id}", run_id=run_id, tags=tags, model_id=model_id)
    return str(created.version)


def _create(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another run was faster
            raise


def _described(recipe: Recipe, directory: Path) -> str:
    variant = "" if recipe.variant is None else f", variant={recipe.variant!r}"
    pipeline = (
        f"`from_pretrained({recipe.base!r}, revision={recipe.revision!r}{variant})`"
        if recipe.base
        else f"`{PIPELINE}/` for `from_pretrained(...{variant})`"
        if variant
        else f"`{PIPELINE}/` for `from_pretrained`"
    )
    adapter = f", `{ADAPTER}/` for `load_lora_weights`" if (directory / EXPORTED_ADAPTER).is_dir() else ""
    return f"{pipeline}{adapter}, `{RECIPE}`"
