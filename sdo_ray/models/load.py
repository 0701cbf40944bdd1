"""Load a diffusers pipeline from wherever its reference points."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdo_ray import zoo
from sdo_ray.models.own import is_own, own_class
from sdo_ray.models.quantised import Rounding, quantise
from sdo_ray.models.quiet import quiet_libraries
from sdo_ray.models.reference import parse
from sdo_ray.settings import Problem, SettingsError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

ZOO = "zoo://"

LIBRARIES = ("diffusers", "transformers")
"""Packages whose classes a model's components may be of, besides the modules of `diffusers.pipelines`."""


ADAPTERS = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
"""Files of adapters, of diffusers and of PEFT."""


def check_base(base: str) -> None:
    """Refuse a reference that cannot be a model, without loading or downloading anything.

    Raises:
        SettingsError: of `base`: an unknown zoo model, or a directory that is not a diffusers pipeline.
    """
    if base.startswith(ZOO):
        if base.removeprefix(ZOO) not in zoo.available():
            known = ", ".join(ZOO + name for name in zoo.available())
            raise SettingsError(
                Problem("base", f"got {base!r}", f"the zoo has {known}", "choose one of these, a path or a hub id")
            )
        return
    named = parse(base).base
    path = Path(named).expanduser()
    if path.is_dir():
        if not (path / "model_index.json").is_file():
            got = f"the directory {base!r} has no model_index.json"
            raise SettingsError(Problem("base", got, fix=_instead_of(path)))
        return
    if path.is_file():
        got = f"{base!r} is a file, and a model is a directory in diffusers format"
        fix = f"`sdo compose --single-file {named} --model BASE --out DIR` makes one of a checkpoint in .safetensors"
        raise SettingsError(Problem("base", got, fix=fix))
    looks_local = named.startswith((".", "/", "~")) or named.count("/") != 1
    if looks_local:
        raise SettingsError(
            Problem(
                "base",
                f"{base!r} is no directory here and no hub id",
                fix="give `zoo://NAME`, an existing directory in diffusers format, or a hub id such as `org/name`",
            )
        )


def _instead_of(directory: Path) -> str:
    """What to give as a model where a directory holds something else."""
    for adapter in (directory, directory / "adapter"):  # the latter of a run
        if any((adapter / file).is_file() for file in ADAPTERS):
            compose = f"`sdo compose --model BASE --adapter {adapter} --out DIR`"
            return f"it has an adapter: give the model that it is for, or {compose}, which puts it into its weights"
    if (directory / "model" / "model_index.json").is_file():
        return f"give {directory / 'model'}"
    return "give a whole pipeline, as `pipeline.save_pretrained(directory)` writes it"


def resolve(base: str) -> str:
    """Where a base model's configuration files are: a directory, or a hub id.

    Raises:
        SettingsError: see `check_base`.
    """
    check_base(base)
    if base.startswith(ZOO):
        return str(zoo.directory(base.removeprefix(ZOO)))
    base = parse(base).base
    path = Path(base).expanduser()
    return str(path) if path.is_dir() else base


def load_index(base: str) -> dict[str, Any]:
    """The `model_index.json` of a base model.

    Raises:
        SettingsError: see `check_base`; or it cannot be read.
    """
    import diffusers

    place = resolve(base)
    failed = None if Path(place).is_dir() else _FAILED.get(base)
    if failed is not None and time.monotonic() - failed[0] < FORGOTTEN:
        raise failed[1]
    try:
        with quiet_libraries(), reading(base):
            found: dict[str, Any] = diffusers.DiffusionPipeline.load_config(place, **parse(base).of_configurations)
    except SettingsError as error:
        if not Path(place).is_dir():
            _FAILED[base] = (time.monotonic(), error)
        raise
    return found


def component_entries(index: Mapping[str, Any]) -> dict[str, tuple[str | None, str | None]]:
    """Component name -> library and class, both None of one that is absent; of a `model_index.json`.

    Other arguments of a pipeline may be lists as well, such as Krea 2's numbers of layers.
    """
    return {
        name: (entry[0], entry[1])
        for name, entry in index.items()
        if not name.startswith("_")
        and isinstance(entry, list)
        and len(entry) == 2
        and all(part is None or isinstance(part, str) for part in entry)
    }


FORGOTTEN = 60.0
"""Seconds in which a hub that did not answer is not asked for the same again: each time it takes half a minute."""
_FAILED: dict[str, tuple[float, SettingsError]] = {}


def load_component_config(base: str, component: str) -> dict[str, Any]:
    """The `config.json` of a base model's network.

    Raises:
        SettingsError: it cannot be read.
    """
    import diffusers

    options = parse(base).of_configurations | {"subfolder": component}
    with quiet_libraries(), reading(base):
        found: dict[str, Any] = diffusers.AutoModel.load_config(resolve(base), **options)
    return found


def component_class(library: str, kind: str) -> Any:
    """The class of a component, as a `model_index.json` names it; nothing is imported for it.

    One from outside diffusers and transformers is of a module that a pipeline of the user's own has imported.
    """
    import diffusers
    import transformers

    found = {"diffusers": diffusers, "transformers": transformers}.get(library) or sys.modules.get(library)
    return getattr(found or getattr(diffusers.pipelines, library), kind)


def pipeline_class(base: str) -> type[DiffusionPipeline]:
    """The class of a base model's pipeline, from its configuration alone.

    Raises:
        SettingsError: the configuration cannot be read, or the class is neither one of diffusers nor named as the
            user's own.
    """
    import diffusers

    if (own := parse(base).pipeline) is not None:
        return own_class(own)
    named = load_index(base)["_class_name"]
    name = named if isinstance(named, str) else named[-1]  # [module, class] names a file of the model's own
    found: type[DiffusionPipeline] | None = getattr(diffusers, name, None) if name == named else None
    if found is None:
        raise SettingsError(
            Problem(
                "base",
                f"{base!r} is a {name}, code from outside diffusers",
                "it is not run",
                "name another model, or a class of your own by `pipeline`",
            )
        )
    return found


@contextmanager
def reading(base: str) -> Iterator[None]:
    """Turn a failure to read the base model's files inside the block into a `SettingsError`."""
    try:
        yield
    except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        cause = " ".join(str(error).split())[:300]
        here = Path(parse(base).base).expanduser().is_dir()
        fix = (
            "save or download it again"
            if here
            else f"check the name, and the network or HF_TOKEN; there is no such directory in {Path.cwd()} either"
        )
        raise SettingsError(Problem("base", f"{base!r} cannot be read: {cause}", fix=fix)) from None


def load_pipeline(
    base: str,
    dtype: str = "float32",
    device: str = "cpu",
    types: Mapping[str, str] | None = None,
    rounding: Mapping[str, Rounding] | None = None,
) -> DiffusionPipeline:
    """A frozen pipeline, ready to sample.

    Args:
        base: `zoo://NAME`, a directory in diffusers format, or a hub id; see `sdo_ray.models.reference`.
        dtype: name of the torch type of all weights, such as "float32".
        device: torch device.
        types: component -> name of the type of its weights, where it is another; see
            `sdo_ray.models.precision.component_types`.
        rounding: component -> how the weights of its linear layers are rounded, where they are.

    Returns:
        The pipeline with every parameter `requires_grad=False`, in eval mode, its progress bar off. Weights are read
        from safetensors only and no code from the model's repository is run.

    Raises:
        SettingsError: see `check_base`; its files cannot be read, or it has no component of a name in `types` or
            `rounding`; what rounds is not installed.
    """
    import torch
    from diffusers import DiffusionPipeline

    from sdo_ray.models.precision import component_types

    pipeline_class(base)
    check_components(base)
    torch_dtype = getattr(torch, dtype)
    with quiet_libraries(), reading(base):
        if base.startswith(ZOO):
            pipeline = zoo.load(base.removeprefix(ZOO))
            if torch_dtype != torch.float32:
                pipeline.to(torch_dtype)
        else:
            # Saved as there being none, such as SD3's T5, which diffusers alone would miss.
            absent = {name: None for name, entry in load_index(base).items() if entry == [None, None]}
            loaded = {"default": torch_dtype} | {name: getattr(torch, own) for name, own in (types or {}).items()}
            options = parse(base).of_weights | {"dtype": loaded, "use_safetensors": True}
            kind = DiffusionPipeline if parse(base).pipeline is None else pipeline_class(base)
            pipeline = kind.from_pretrained(resolve(base), **options, **absent)
    pipeline.set_progress_bar_config(disable=True)
    for name, component in pipeline.components.items():
        if isinstance(component, torch.nn.Module):
            if missing := [key for key, parameter in component.named_parameters() if parameter.is_meta]:
                raise SettingsError(
                    Problem(
                        "base",
                        f"the {name} of {base!r} lacks weights for {len(missing)} parameters, such as {missing[0]!r}",
                        fix="save the whole model, with adapters merged or unloaded",
                    )
                )
            component.requires_grad_(False).eval()
            if getattr(component, "_supports_gradient_checkpointing", False):
                # Classes that say so and do not set it fail where there is a graph (diffusers' ZImageControlNetModel).
                vars(component).setdefault("gradient_checkpointing", False)
    networks = sorted(name for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module))
    check_named("dtypes", types or {}, networks, base)
    check_named("quantize", rounding or {}, networks, base)
    for name, own in component_types(pipeline.components, dtype, types or {}).items():
        if own != torch_dtype:
            pipeline.components[name].to(own)
    for name, to in (rounding or {}).items():
        quantise(pipeline.components[name], to)
    return pipeline.to(device)


def check_named(setting: str, named: Iterable[str], networks: Iterable[str], base: str) -> None:
    """Refuse names of components that are no networks of a base model, in a setting that names some."""
    if unknown := sorted(set(named) - set(networks)):
        got = f"{base!r} has no {' and no '.join(unknown)} with weights"
        raise SettingsError(Problem(setting, got, f"it has {', '.join(networks)}", "name one of these"))


def check_components(base: str) -> None:
    """Refuse a model one of whose components is code that comes with it."""
    import diffusers

    for name, (library, kind) in component_entries(load_index(base)).items():
        if library is None:
            continue
        if library not in LIBRARIES and not hasattr(diffusers.pipelines, library) and not is_own(base, library):
            raise SettingsError(
                Problem(
                    "base",
                    f"the {name} of {base!r} is {library}.{kind}, code from outside diffusers and transformers",
                    "it is not run",
                    "name another model",
                )
            )


def checks_of(base: str) -> list[str]:
    """Those components of a base model that look at finished images or mark them, from its configuration alone.

    A gradient is made without them (`sdo_ray.backprop.bypass`); they are in what is exported.

    Raises:
        SettingsError: see `check_base`; its configuration cannot be read.
    """
    import diffusers

    from sdo_ray.backprop.bypass import CHECKS

    with quiet_libraries(), reading(base):
        index = diffusers.DiffusionPipeline.load_config(resolve(base))
    return [name for name in CHECKS if isinstance(entry := index.get(name), list | tuple) and entry[0] is not None]


def load_scheduler(base: str) -> Any:
    """A base model's scheduler alone.

    Raises:
        SettingsError: see `check_base`; its configuration cannot be read, or its class is not one of diffusers.
    """
    import diffusers

    library, kind = load_index(base).get("scheduler", (None, None))
    if library != "diffusers":
        fix = "name a model that is sampled by steps"
        raise SettingsError(Problem("base", f"{base!r} has no scheduler of diffusers", fix=fix))
    options = parse(base).of_configurations | {"subfolder": "scheduler"}
    with quiet_libraries(), reading(base):
        return getattr(diffusers, kind).from_pretrained(resolve(base), **options)
