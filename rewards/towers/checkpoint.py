"""Checkpoints of other people's rewards: found, read without running code of theirs, loaded strictly, described."""

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from rewards.towers.quiet import quiet_transformers

PRECISIONS = {kind: getattr(torch, kind) for kind in ("float32", "bfloat16", "float16", "float64")}
"""What a network can compute in. float64 is for checks of gradients."""

CONSTANTS = ("position_ids", "attn_mask")
"""Ends of names that older versions of networks saved constants by."""

_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
_LOCAL = ("/", ".", "~")
_Module = TypeVar("_Module", bound=nn.Module)


@dataclass(frozen=True)
class Checkpoint:
    """What weights, or anything else that a score rests on, were read from."""

    source: str
    """Hub id or path, as it was given."""

    revision: str | None
    """Commit of the hub; None for local files."""

    sha256: str
    """Of the contents of its files, in the order of their names."""


class FromHub:
    """Base of rewards with a network from elsewhere.

    Its option `source` is a hub id or the path of a local folder or file, `dtype` one of `PRECISIONS`.
    """

    checkpoints: tuple[Checkpoint, ...]
    """What its weights were read from, for provenance."""

    @classmethod
    def check_use(cls, prompts: Sequence[str], **options: Any) -> None:
        """Refuse sources that are neither hub ids nor there, and precisions that there are not."""
        precision(options.get("dtype", "float32"))
        for option in ("source", "tokenizer", "base"):
            if option in options:
                check_source(option, options[option])


def check_source(option: str, source: str) -> None:
    """Check what can be checked without the network.

    Raises:
        ValueError: a path that leads nowhere, or a text that is neither a path nor a hub id.
    """
    if Path(source).expanduser().exists():
        return
    if source.startswith(_LOCAL):
        raise ValueError(f"option {option!r}: there is no {source!r}; give a local path that exists, or a hub id")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        raise ValueError(
            f"option {option!r} must be a hub id 'owner/name', or the path of a local folder or file, got {source!r}"
        )


def precision(dtype: str) -> torch.dtype:
    """The type of torch by its name.

    Raises:
        ValueError: not one of `PRECISIONS`.
    """
    if dtype not in PRECISIONS:
        raise ValueError(f"option 'dtype' must be one of {', '.join(PRECISIONS)}, got {dtype!r}")
    return PRECISIONS[dtype]


def find_folder(source: str, revision: str | None = None, files: Sequence[str] = ()) -> Path:
    """The folder of a model: a local one, or a snapshot of the hub.

    Args:
        source: hub id or local folder.
        revision: of the hub.
        files: patterns of those that are wanted of the hub; none: a model's in the layout of transformers.

    Raises:
        OSError: it is not there.
    """
    local = Path(source).expanduser()
    if local.is_dir():
        return local
    from huggingface_hub import snapshot_download

    # Folders inside hold the same weights in other formats.
    others = None if files else ["*/*"]
    return Path(
        snapshot_download(source, revision=revision, allow_patterns=[*(files or _FILES)], ignore_patterns=others)
    )


def find_file(source: str, name: str, revision: str | None = None) -> Path:
    """A file of weights: `source` itself, the file `name` in that folder, or in that repository of the hub.

    Raises:
        OSError: it is not there.
    """
    local = Path(source).expanduser()
    if local.is_file():
        return local
    if local.is_dir():
        if not (local / name).is_file():
            raise FileNotFoundError(f"no file {name!r} in {str(local)!r}")
        return local / name
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(source, name, revision=revision))


def kind_of(folder: Path) -> str:
    """The `model_type` of a folder in the layout of transformers.

    Raises:
        OSError: it has no configuration.
    """
    return str(json.loads((folder / "config.json").read_text()).get("model_type"))


def describe(source: str, *files: Path) -> Checkpoint:
    """What was found for `source`, files of weights."""
    parts = files[0].parts
    revision = parts[parts.index("snapshots") + 1] if "snapshots" in parts and not Path(source).exists() else None
    return Checkpoint(source, revision, sha256(*files))


def describe_folder(source: str, folder: Path) -> Checkpoint:
    """What was found for `source`, a folder from `find_folder`.

    Raises:
        OSError: there are no safetensors in it.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"there are no safetensors in {str(folder)!r}")
    return describe(source, *files)


def sha256(*paths: Path) -> str:
    """sha256 of the contents of files, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, on the CPU. One level of `state_dict`, `model` or `module` around them is taken off.

    Args:
        path: of safetensors, or anything else that torch reads with `weights_only=True`.

    Raises:
        OSError: no such file.
        ValueError: it holds anything but tensors by name.
    """
    if path.suffix == ".safetensors":
        return load_file(path)
    found = torch.load(path, map_location="cpu", weights_only=True)
    for key in ("state_dict", "model", "module"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ValueError(f"{path} is no checkpoint: it must hold tensors by name")
    return dict(found)


def check_keys(found: Collection[str], wanted: Collection[str], what: str) -> None:
    """Check that a checkpoint has exactly the keys that it must have.

    Raises:
        ValueError: naming some of those that are missing or too many.
    """
    missing, extra = sorted({*wanted} - {*found}), sorted({*found} - {*wanted})
    if missing or extra:
        raise ValueError(
            f"this is no checkpoint of {what}: {len(missing)} keys are missing ({_some(missing)}) and "
            f"{len(extra)} are unknown ({_some(extra)})"
        )


def load_strict(module: _Module, tensors: Mapping[str, Tensor], what: str) -> _Module:
    """Load weights into a module, which may be on the meta device, and freeze it.

    Args:
        module: whose parameters and buffers take the tensors as they are, without a copy.
        tensors: by the module's own names; `CONSTANTS` are left out.
        what: the network's name, for messages.

    Raises:
        ValueError: other keys or shapes than the module's.
    """
    wanted = module.state_dict()
    tensors = {key: tensor for key, tensor in tensors.items() if not key.endswith(CONSTANTS)}
    check_keys(tensors.keys(), wanted.keys(), what)
    for key, tensor in tensors.items():
        if tensor.shape != wanted[key].shape:
            raise ValueError(
                f"this is no checkpoint of {what}: {key} is {list(tensor.shape)}, not {list(wanted[key].shape)}"
            )
    module.load_state_dict(tensors, assign=True)
    return frozen(module)


def load_pretrained(cls: type[_Module], folder: Path, dtype: str, device: str) -> _Module:
    """A model of transformers from its folder, frozen.

    Args:
        cls: its class, which has `from_pretrained`.
        folder: from `find_folder`.
        dtype: what it computes in.
        device: where.

    Raises:
        OSError: there are no safetensors.
        ValueError: keys are missing, too many, or of other shapes.
    """
    made: Any = cls
    with quiet_transformers():
        model, info = made.from_pretrained(
            folder,
            dtype=precision(dtype),
            use_safetensors=True,
            local_files_only=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
            output_loading_info=True,
        )
    extra = [key for key in info["unexpected_keys"] if not key.endswith(CONSTANTS)]
    wrong = [*info["missing_keys"], *extra, *(str(key) for key in info["mismatched_keys"])]
    if wrong:
        raise ValueError(f"{folder} is no checkpoint of {cls.__name__}: missing, unknown or other: {_some(wrong)}")
    return frozen(model.to(device))


def frozen(module: _Module) -> _Module:
    """The module, in evaluation mode and without gradients of its own."""
    return module.eval().requires_grad_(False)


def _some(keys: Sequence[str]) -> str:
    return ", ".join(keys[:4]) + (", ..." if len(keys) > 4 else "") if keys else "none"
