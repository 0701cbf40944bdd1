"""Put a base model together: other people's adapters in its weights, another autoencoder or scheduler, learned words.

What comes out is a model in diffusers format, a base like any other: everything that reads one needs to know no more.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch

from sdo_ray.models.adapter_file import load_adapter
from sdo_ray.models.load import check_components, pipeline_class, reading, resolve
from sdo_ray.models.quiet import quiet_libraries
from sdo_ray.settings import Problem, SettingsError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

ENCODERS = {"clip_l": ("text_encoder", "tokenizer"), "clip_g": ("text_encoder_2", "tokenizer_2")}
"""What SDXL's files of learned words hold, and whose they are."""


def load_single_file(location: str, base: str, dtype: str) -> DiffusionPipeline:
    """A checkpoint as ComfyUI and A1111 have it, in one file.

    Args:
        location: a `.safetensors` file with the denoiser and, as far as the model has them, its other networks.
        base: reference of a model of the same architecture, whose configurations are read.
        dtype: name of the torch type of all weights.

    Raises:
        SettingsError: it cannot be read, or is no checkpoint of that architecture.
    """
    import torch

    file = Path(location).expanduser()
    if file.suffix != ".safetensors" or not file.is_file():
        got = f"{location!r} is no .safetensors file here"
        raise SettingsError(Problem("--single-file", got, fix="convert it where you trust it; others may hold code"))
    check_components(base)
    kind, config = pipeline_class(base), resolve(base)
    try:
        with quiet_libraries():
            loaded: DiffusionPipeline = kind.from_single_file(str(file), config=config, dtype=getattr(torch, dtype))
    except Exception as error:  # whatever the converters of diffusers trip over
        cause = " ".join(str(error).split())[:300]
        got = f"{location!r} is no checkpoint of a {kind.__name__} with all its networks: {cause}"
        raise SettingsError(Problem("--single-file", got, fix="name a model of its architecture as --model")) from None
    return loaded


def fuse_adapter(pipeline: DiffusionPipeline, location: str, weight: float = 1.0) -> None:
    """Add an adapter, `weight` times, to the weights of its layers.

    Args:
        pipeline: without adapters.
        location: see `load_adapter`.
        weight: any number; 0 changes nothing.

    Raises:
        SettingsError: see `load_adapter`.
    """
    load_adapter(pipeline, location)
    with quiet_libraries():
        parts = [name for name in pipeline._lora_loadable_modules if getattr(pipeline, name, None) is not None]
        pipeline.fuse_lora(components=parts, lora_scale=weight)
        pipeline.unload_lora_weights()


def replace_autoencoder(pipeline: DiffusionPipeline, location: str) -> None:
    """Take the autoencoder of another model, or one that lies by itself.

    Args:
        pipeline: which has one.
        location: directory or hub id of an autoencoder, or of a model, whose part `vae` it then is.

    Raises:
        SettingsError: there is none, or it has another class or other latents.
    """
    old = getattr(pipeline, "vae", None)
    if old is None:
        raise SettingsError(Problem("--vae", f"a {type(pipeline).__name__} has no vae"))
    path = Path(location).expanduser()
    inside = {"subfolder": "vae"} if (path / "vae").is_dir() or not path.is_dir() else {}
    try:
        with quiet_libraries(), reading(location):
            new = type(old).from_pretrained(str(path) if path.is_dir() else location, use_safetensors=True, **inside)
    except SettingsError as error:
        raise error.at("--vae") from None
    for name in ("latent_channels", "z_dim"):
        before, now = (part.config.get(name) for part in (old, new))
        if before != now:
            got = f"{location!r} has {name} = {now}, and the model's own {before}"
            raise SettingsError(Problem("--vae", got, fix="name one for the same latents"))
    pipeline.register_modules(vae=new.to(old.dtype))


def replace_scheduler(pipeline: DiffusionPipeline, name: str | None, options: Mapping[str, Any]) -> None:
    """Take another scheduler, with the configuration of the model's own but for `options`.

    Args:
        pipeline: with a scheduler.
        name: class of diffusers; None: the class that it has.
        options: of its configuration.

    Raises:
        SettingsError: no scheduler of that name, or one that takes no such option.
    """
    import diffusers

    kind: Any = type(pipeline.scheduler) if name is None else getattr(diffusers, name, None)
    if diffusers.SchedulerMixin not in getattr(kind, "__mro__", ()):
        legal = ", ".join(sorted(other.__name__ for other in pipeline.scheduler.compatibles))
        got = f"diffusers has no scheduler {name!r}"
        raise SettingsError(Problem("--scheduler", got, f"in place of the model's own there are {legal}", "name one"))
    legal_options = [option for option in inspect.signature(kind.__init__).parameters if option != "self"]
    if unknown := [option for option in options if option not in legal_options]:
        got = f"{kind.__name__} has no {', '.join(unknown)}"
        raise SettingsError(Problem("--set", got, f"it has {', '.join(legal_options)}", "rename or remove it"))
    pipeline.register_modules(scheduler=kind.from_config(pipeline.scheduler.config, **options))


def add_words(pipeline: DiffusionPipeline, location: str, word: str | None) -> str:
    """Teach tokenizer and text encoder a word that was learned (textual inversion, arXiv 2208.01618).

    Args:
        pipeline: SD 1.x, 2.x or SDXL.
        location: a `.safetensors` file; SDXL's has an embedding for each of its text encoders.
        word: what it is called in prompts; None: as the file says, else its name.

    Returns:
        The word.

    Raises:
        SettingsError: it cannot be read, does not fit the text encoders, or the word is one already.
    """
    file = Path(location).expanduser()
    if file.suffix != ".safetensors" or not file.is_file():
        got = f"{location!r} is no .safetensors file here"
        raise SettingsError(Problem("--embedding", got, fix="convert it where you trust it; others may hold code"))
    if not hasattr(pipeline, "load_textual_inversion"):
        raise SettingsError(Problem("--embedding", f"a {type(pipeline).__name__} takes no learned words"))
    word = word or file.stem
    tensors = safetensors.torch.load_file(file)
    try:
        with quiet_libraries():
            for key, tensor in tensors.items():
                encoder, tokenizer = ENCODERS.get(key, ENCODERS["clip_l"])
                parts = {"text_encoder": getattr(pipeline, encoder), "tokenizer": getattr(pipeline, tokenizer)}
                pipeline.load_textual_inversion({key: tensor}, token=word, **parts)
    except (ValueError, RuntimeError, AttributeError) as error:
        cause = " ".join(str(error).split())[:200]
        got = f"{location!r} does not fit {type(pipeline).__name__}: {cause}"
        raise SettingsError(Problem("--embedding", got, fix="name one for this model, or another word")) from None
    return word
