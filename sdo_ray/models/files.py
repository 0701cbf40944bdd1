"""Whether a base model's files can be read: said in a line, before anything loads them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sdo_ray.models.load import ZOO, check_base, component_class, component_entries, reading, resolve
from sdo_ray.models.quiet import quiet_libraries
from sdo_ray.models.reference import Reference, parse
from sdo_ray.settings import Problem, Problems, SettingsError

_WEIGHTS = re.compile(
    r"(?:diffusion_pytorch_model|model)(?:\.(?P<variant>[\w-]+?))?(?:-\d+-of-\d+)?(?:\.(?P<old_variant>\w+))?\.safetensors"
)
"""Names of files of weights, with the variant in both of the places that it has had beside a shard's number."""
_POINTER = b"version https://git-lfs"


def pinned(base: str) -> str:
    """The reference with the commit that it means now, so that every node reads the same; others as they are.

    Raises:
        SettingsError: the hub does not know it, or cannot be asked and the model is not in this machine's cache.
    """
    reference = parse(base)
    if base.startswith(ZOO) or Path(resolve(base)).is_dir():
        return base
    with reading(base):
        commit = _commit(reference)
    return str(replace(reference, revision=commit))


def cached(base: str) -> str:
    """The directory in which a base model's files are on this machine; of a hub model that is not here, its id."""
    from huggingface_hub import try_to_load_from_cache

    location, reference = resolve(base), parse(base)
    if Path(location).is_dir():
        return location
    index = try_to_load_from_cache(location, "model_index.json", revision=reference.revision)
    return str(Path(index).parent) if isinstance(index, str) else location


def check_files(base: str) -> None:
    """Refuse a model in a directory of this machine, a hub model's in the cache too, whose weights cannot be read.

    Raises:
        SettingsError: of `base` or `variant`: no weights are of the variant, or there is a configuration or a folder
            missing, or a component has no safetensors, or none of the variant, or not all of its parts, or a file is
            cut or only a pointer to Git LFS.
    """
    import torch
    from diffusers import DiffusionPipeline

    check_base(base)
    directory = Path(cached(base))
    if base.startswith(ZOO) or not directory.is_dir():
        return
    with quiet_libraries(), reading(base):
        index = DiffusionPipeline.load_config(str(directory))
    of_the_hub = Path(resolve(base)) != directory
    if of_the_hub and not any(directory.rglob("*.safetensors")):
        return  # configurations alone
    variant = parse(base).variant
    if variant and not of_the_hub and not any(_variant(file.name) == variant for file in directory.rglob("*")):
        got = f"got {variant!r}, and no weights of {base!r} are of it"
        raise SettingsError(Problem("variant", got, fix="remove it, or name one that is there"))
    with Problems() as problems:
        for name, (library, named) in component_entries(index).items():
            if library is None or named is None:
                continue
            if not (directory / name).is_dir():
                if not of_the_hub:
                    got = f"{base!r} has no folder {name}, which its model_index.json names"
                    problems.add(Problem("base", got, fix="save or download the whole model"))
                continue
            kind = component_class(library, named)
            with problems.of():
                _check_whole(base, name, [file for file in sorted((directory / name).iterdir()) if file.is_file()])
                if isinstance(kind, type) and issubclass(kind, torch.nn.Module):
                    _check_weights(base, name, directory / name, variant)


def _check_whole(base: str, name: str, files: Sequence[Path]) -> None:
    """Refuse a component with a damaged configuration or vocabulary; other files may lie there unread."""
    for file in files:
        if file.suffix in (".json", ".txt", ".model") and file.name[0] != "." and (cause := damage(file)):
            raise SettingsError(_damaged(base, name, file, cause))


def _check_weights(base: str, name: str, directory: Path, variant: str | None) -> None:
    names = sorted(file.name for file in directory.iterdir())
    found: dict[str | None, list[str]] = {}
    for file in names:
        if _WEIGHTS.fullmatch(file):
            found.setdefault(_variant(file), []).append(file)
    files = found.get(variant) or found.get(None)
    if files is None:
        raise SettingsError(_no_weights(base, name, names, [str(other) for other in found]))
    is_local = Path(resolve(base)) == directory.parent  # of the hub's, what is not there yet is downloaded
    for index in [file for file in names if is_local and file.endswith(".json") and ".safetensors.index" in file]:
        listed = set(json.loads((directory / index).read_text()).get("weight_map", {}).values())
        if listed & set(files) and (absent := sorted(listed - set(files))):
            got = f"the {name} of {base!r} lacks {len(absent)} of the {len(listed)} files of its weights: {absent[0]}"
            raise SettingsError(Problem("base", got, fix="download it again"))
    for file in files:
        if cause := damage(directory / file):
            raise SettingsError(_damaged(base, name, directory / file, cause))


def _damaged(base: str, name: str, file: Path, cause: str) -> Problem:
    got = f"{file.name} of the {name} of {base!r} {cause}"
    return Problem("base", got, fix="download it again, with `git lfs pull` in a clone")


def _variant(file: str) -> str | None:
    """Of a file of weights of that name; None if it is of none, or holds none."""
    match = _WEIGHTS.fullmatch(file)
    return match and (match["variant"] or match["old_variant"])


def _no_weights(base: str, name: str, files: list[str], variants: list[str]) -> Problem:
    if variants:
        got = f"the weights of the {name} of {base!r} are there as {', '.join(variants)} only"
        return Problem("variant", got, fix=f"give it: {variants[0]}")
    if pickles := [file for file in files if file.endswith((".bin", ".ckpt", ".pt"))]:
        got = f"the {name} of {base!r} has {pickles[0]}, which may hold code that runs, and no .safetensors"
        fix = "name a revision that has them, or convert it where you trust it: `from_pretrained(...)` of diffusers, "
        return Problem("base", got, "only .safetensors files are read", f"{fix}`save_pretrained(directory)`")
    fix = "save or download the whole model"
    return Problem("base", f"the {name} of {base!r} has no weights: no .safetensors file", fix=fix)


def damage(file: Path) -> str | None:
    """What is wrong with a file, from its first bytes, and its size or its last; None if nothing is."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(len(_POINTER))
        if start == _POINTER:
            return "is a pointer of Git LFS, not the file itself"
        if file.suffix == ".json":
            stream.seek(max(size - 64, 0))
            return None if stream.read().rstrip().endswith((b"}", b"]")) else f"is cut: it has {size} bytes"
        if file.suffix != ".safetensors":
            return None
        length = int.from_bytes(start[:8], "little")
        stream.seek(8)
        try:
            header: Mapping[str, dict[str, list[int]]] = json.loads(stream.read(length)) if length < size else {}
            end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
        except (ValueError, KeyError, TypeError):
            return f"is no safetensors file, or is cut: it has {size} bytes"
    whole = 8 + length + end
    return None if size >= whole else f"is cut: it has {size} of {whole} bytes"


def _commit(reference: Reference) -> str:
    """The commit of a hub model's revision: of the hub, or, where it cannot be asked, in this machine's cache."""
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import OfflineModeIsEnabled

    try:
        return str(HfApi().model_info(reference.base, revision=reference.revision).sha)
    except (OSError, OfflineModeIsEnabled):
        index = try_to_load_from_cache(reference.base, "model_index.json", revision=reference.revision)
        if not isinstance(index, str):
            raise
        return Path(index).parent.name
