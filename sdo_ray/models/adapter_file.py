"""An adapter as a file of plain diffusers: write it, load it."""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors
import torch

from sdo_ray.models.denoisers import find_denoisers, find_text_encoders
from sdo_ray.models.files import damage
from sdo_ray.models.quiet import quiet_libraries
from sdo_ray.settings import Problem, SettingsError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

FILE = "pytorch_lora_weights.safetensors"
"""The file's name in diffusers."""
PEFT_FILE = "adapter_model.safetensors"
"""The file's name in PEFT, whose tensors have other names."""
FIT = "give the base model that it was trained on"
"""What to do about an adapter that does not fit."""


def has_adapter_file(kind: type[DiffusionPipeline], adapted: Collection[str]) -> bool:
    """Whether diffusers has a file for adapters of a pipeline's components; for many pipelines it has none.

    Args:
        kind: class of the pipeline.
        adapted: names of the components.
    """
    save = getattr(kind, "save_lora_weights", None)
    taken = inspect.signature(save).parameters if save else ()
    return all(f"{name}_lora_layers" in taken for name in adapted)


def save_adapter(
    kind: type[DiffusionPipeline],
    adapted: Mapping[str, torch.nn.Module],
    weights: Mapping[str, torch.Tensor],
    directory: Path,
) -> Path:
    """Write weights as `pytorch_lora_weights.safetensors`, which `pipe.load_lora_weights(directory)` takes.

    Args:
        kind: class of the pipeline, one with a file for the adapters of all these, see `has_adapter_file`.
        adapted: its components with one adapter of PEFT's each, by name, on any device; for their shapes alone.
        weights: named as in `trained_parameters`.
        directory: where to.

    Returns:
        The file's path.
    """
    from peft.utils import get_peft_model_state_dict

    layers, metadata = {}, {}
    for component, module in adapted.items():
        configs: Any = module.peft_config
        [(adapter, config)] = configs.items()
        prefix = f"{component}."
        own = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
        layers[f"{component}_lora_layers"] = get_peft_model_state_dict(module, state_dict=own, adapter_name=adapter)
        # The metadata carries alpha: without it the loader assumes alpha = rank. A set's order differs by process.
        metadata[f"{component}_lora_adapter_metadata"] = {
            key: sorted(value) if isinstance(value, set) else value for key, value in config.to_dict().items()
        }
    kind.save_lora_weights(str(directory), safe_serialization=True, **layers, **metadata)
    _order_metadata(directory / FILE)
    return directory / FILE


def load_adapter(pipeline: DiffusionPipeline, location: str) -> None:
    """Load an adapter from a file or directory that `save_adapter`, or any trainer in its format, wrote.

    Args:
        pipeline: a pipeline without adapter, on any device.
        location: a `.safetensors` file, or a directory with `pytorch_lora_weights.safetensors`.

    Raises:
        SettingsError: there is none, it cannot be read, or it does not fit the pipeline's denoisers.
    """
    file = adapter_file(location)
    told = list[str]()
    try:
        with safetensors.safe_open(file, "pt") as tensors:
            given = sum(".lora_A." in name or ".lora_B." in name for name in tensors.keys())  # noqa: SIM118
        with quiet_libraries(), _listening(told):
            pipeline.load_lora_weights(str(file.parent), weight_name=file.name)
    except (safetensors.SafetensorError, ValueError, RuntimeError, KeyError, AttributeError, AssertionError) as error:
        cause = " ".join(str(error).split())[:200] or f"diffusers' reader ends with {type(error).__name__}"
        got = f"{str(file)!r} does not fit {type(pipeline).__name__}: {cause}"
        raise SettingsError(Problem("adapter", got, fix=FIT)) from None
    taken = sum(
        ".lora_A." in name or ".lora_B." in name
        for module in (find_denoisers(pipeline) | find_text_encoders(pipeline)).values()
        for name, _ in module.named_parameters()
    )
    # diffusers drops what it has no layer for behind a warning. Files in other formats have no such names to count.
    if not taken or given not in (0, taken):
        fits = f"{taken} of its {given} tensors have a layer there"
        raise SettingsError(
            Problem("adapter", f"{str(file)!r} does not fit {type(pipeline).__name__}: {fits}", fix=FIT)
        )
    if told:
        cause = " ".join(told[0].split())[:200]
        got = f"{str(file)!r} does not fit {type(pipeline).__name__} as a whole: {cause}"
        raise SettingsError(Problem("adapter", got, fix=FIT))


def adapter_file(location: str) -> Path:
    """The file of an adapter.

    Args:
        location: a `.safetensors` file, or a directory with `pytorch_lora_weights.safetensors`.

    Raises:
        SettingsError: there is none, it may hold code or is of PEFT's own format, or it is damaged.
    """
    path = Path(location).expanduser()
    file = path / FILE if path.is_dir() else path
    if (path / PEFT_FILE).is_file() or path.name == PEFT_FILE:
        raise SettingsError(_of_peft(location))
    if not file.is_file():
        inside = path / "adapter"  # of a run
        example = str(inside) if (inside / FILE).is_file() else "`adapter` of a finished run"
        fix = f"give a directory with one, such as {example}, or a .safetensors file"
        raise SettingsError(Problem("adapter", f"{location!r} has no {FILE}", fix=fix))
    if file.suffix != ".safetensors":
        raise SettingsError(
            Problem("adapter", f"{str(file)!r} may hold code that runs", "only .safetensors files are read")
        )
    if (cause := damage(file)) is not None:
        raise SettingsError(Problem("adapter", f"{str(file)!r} {cause}", fix="download it again"))
    with safetensors.safe_open(file, "pt") as tensors:
        if (names := list(tensors.keys())) and all(name.startswith("base_model.model.") for name in names):
            raise SettingsError(_of_peft(location))  # under another name
    return file


def _of_peft(location: str) -> Problem:
    return Problem(
        "adapter",
        f"{location!r} is an adapter in PEFT's own format",
        f"diffusers reads {FILE}",
        "load it with PEFT, and write it with `pipeline.save_lora_weights(directory, "
        "unet_lora_layers=peft.get_peft_model_state_dict(model))`, or `transformer_lora_layers=`",
    )


@contextmanager
def _listening(told: list[str]) -> Iterator[None]:
    """Within the block, what diffusers says of layers that a model lacks is collected, and not shown."""
    logger, handler = logging.getLogger("diffusers.utils.peft_utils"), logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]


def _order_metadata(file: Path) -> None:
    """Sort a safetensors file's metadata, which the library writes in any order: so equal adapters are equal files."""
    content = file.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    ordered = json.dumps(header, separators=(",", ":")).encode()
    ordered += b" " * (-len(ordered) % 8)
    file.write_bytes(len(ordered).to_bytes(8, "little") + ordered + content[start:])
