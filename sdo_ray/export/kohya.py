"""A LoRA as ComfyUI, A1111, Forge and Kohya's scripts read it, with its true strength in it.

Names are those of the published model (`sdo_ray.export.names`); layers that are one there are made one here. A reader
multiplies by alpha / rank, and takes alpha to be the rank where there is none.

Of a DoRA, readers disagree: given a scale c for each row, ComfyUI and Forge (`weight_decompose`) make of it the weight
c / |W| (W + update), by the length of the base's own rows, where LyCORIS, A1111 and diffusers divide by |W + update|.
What is written is for the former: c = m |W| / |W + update|.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import safetensors.torch
import torch

from sdo_ray.export.factors import Adapter, Factors
from sdo_ray.export.names import NAMINGS, Published, published_layer, text_layer
from sdo_ray.models.denoisers import TEXT_ENCODERS
from sdo_ray.settings import Problem, SettingsError

LIKE_DIFFUSERS = ("LTXVideoTransformer3DModel", "LTX2VideoTransformer3DModel")
"""Those of whose files diffusers reads no alpha: it is in the second factor, and the factors have diffusers' names."""
DOTTED = ("WanTransformer3DModel", *LIKE_DIFFUSERS)
"""Denoisers whose layers keep their dots, behind `diffusion_model.`: diffusers reads no others of parts of a model."""
DOWN, UP, SCALES = ".lora_down.weight", ".lora_up.weight", ".dora_scale"


def write_kohya(file: Path, adapter: Adapter, modules: Mapping[str, torch.nn.Module], about: Mapping[str, str]) -> None:
    """Write an adapter in this format.

    Args:
        file: to be written, `.safetensors`.
        adapter: layers by component.
        modules: the base model's denoiser and text encoders by component name; for their shapes, on the meta device,
            and of a DoRA for their weights.
        about: entries of the file's metadata, which programs show.

    Raises:
        SettingsError: see `kohya_tensors`.
    """
    tensors = kohya_tensors(adapter, modules)
    metadata = {"ss_network_module": "networks.lora", **about}
    for name, values in (
        ("ss_network_dim", {len(t) for key, t in tensors.items() if key.endswith(DOWN)}),
        ("ss_network_alpha", {float(t) for key, t in tensors.items() if key.endswith(".alpha")}),
    ):
        if len(values) == 1:
            metadata[name] = json.dumps(values.pop())
    file.write_bytes(safetensors.torch.save(tensors, dict(sorted(metadata.items()))))


def readers_of(file: Path) -> str:
    """Programs that make of a file in this format what was trained, in words."""
    return "ComfyUI or Forge" if is_decomposed(file) else "ComfyUI, A1111 or Forge"


def is_decomposed(file: Path) -> bool:
    """Whether a file in this format is of a DoRA."""
    with safetensors.safe_open(file, "pt") as opened:
        return any(name.endswith(SCALES) for name in opened.keys())  # noqa: SIM118


def kohya_tensors(adapter: Adapter, modules: Mapping[str, torch.nn.Module]) -> dict[str, torch.Tensor]:
    """The file's tensors, by name: `.lora_down.weight` [r, in, ...], `.lora_up.weight` [out, r, ...], `.alpha` [].

    Of a DoRA `.dora_scale` [out, 1, ...] too.

    Args:
        adapter: as of `write_kohya`.
        modules: likewise.

    Raises:
        SettingsError: the model's architecture, or one of the layers, has no name in this format.
    """
    tensors: dict[str, torch.Tensor] = {}
    for component, layers in adapter.items():
        module = modules[component]
        if component not in TEXT_ENCODERS and type(module).__name__ not in NAMINGS:
            got = f"a {type(module).__name__} has no names in this format here"
            raise SettingsError(Problem("--format", got, f"{', '.join(NAMINGS)} have", "use `diffusers` or `merged`"))
        places = {layer: _place(component, module, layer) for layer in layers}
        if lost := sorted(layer for layer, place in places.items() if place is None):
            got = f"{len(lost)} layers of the {component} have no name in this format, such as {lost[0]!r}"
            raise SettingsError(Problem("--format", got, fix="use `diffusers` or `merged`, or train other `targets`"))
        prefix = _prefix(component, module, modules)
        for place in sorted({place for place in places.values() if place is not None}, key=lambda place: place.name):
            weights = [module.get_parameter(f"{part}.weight").detach() for part in place.parts]
            parts = [layers.get(part) for part in place.parts]
            factors = stacked(parts, [len(weight) for weight in weights])
            name = prefix + (place.name if prefix.endswith(".") else place.name.replace(".", "_"))
            tensors |= {f"{name}{end}": tensor for end, tensor in _named(factors, type(module).__name__).items()}
            if any(part is not None and part.magnitude is not None for part in parts):
                scales = torch.cat([row_scales(part, weight) for part, weight in zip(parts, weights, strict=True)])
                tensors[name + SCALES] = scales.view(-1, *[1] * (weights[0].dim() - 1))
    return tensors


def stacked(parts: Sequence[Factors | None], rows: Sequence[int]) -> Factors:
    """The update of a layer whose output is that of several, one after another.

    Args:
        parts: factors of each, down [r_i, in] and up [out_i, r_i]; None: it has no update. Not all are.
        rows: out_i of each.

    Returns:
        Down [sum r_i, in], and up [sum out_i, sum r_i] with the ups along its diagonal.
    """
    given = [part for part in parts if part is not None]
    if len(parts) == 1:
        return given[0]
    first, rank = given[0], sum(part.rank for part in given)
    up = first.up.new_zeros(sum(rows), rank)
    row = column = 0
    for part, height in zip(parts, rows, strict=True):
        if part is not None:
            up[row : row + height, column : column + part.rank] = part.up * (part.scale / first.scale)
            column += part.rank
        row += height
    return Factors(torch.cat([part.down for part in given]), up, first.scale * rank)


def row_scales(factors: Factors | None, weight: torch.Tensor) -> torch.Tensor:
    """What ComfyUI has to be given to bring the rows of W + update to their length: m |W| / |W + update|.

    Args:
        factors: of the layer; None: it has no update, and its rows stay as they are.
        weight: W, [out, in, ...].

    Returns:
        [out], float32.
    """
    rows = weight.float().flatten(1)
    length = rows.norm(dim=1)
    if factors is None:
        return length
    updated = (rows + factors.update.float()).norm(dim=1)
    return length * ((updated if factors.magnitude is None else factors.magnitude.float()) / updated)


def _named(factors: Factors, denoiser: str) -> dict[str, torch.Tensor]:
    """The factors by the ends of their names, for the readers of a denoiser's files."""
    if denoiser in LIKE_DIFFUSERS:
        up = factors.scale * factors.up
        return {".lora_A.weight": factors.down.contiguous(), ".lora_B.weight": up.contiguous()}
    alpha = torch.tensor(factors.alpha, dtype=factors.down.dtype)
    return {DOWN: factors.down.contiguous(), UP: factors.up.contiguous(), ".alpha": alpha}


def _place(component: str, module: torch.nn.Module, layer: str) -> Published | None:
    return text_layer(layer) if component in TEXT_ENCODERS else published_layer(module, layer)


def _prefix(component: str, module: torch.nn.Module, modules: Mapping[str, torch.nn.Module]) -> str:
    if component not in TEXT_ENCODERS:
        return "diffusion_model." if type(module).__name__ in DOTTED else "lora_unet_"
    several = TEXT_ENCODERS[1] in modules
    return f"lora_te{TEXT_ENCODERS.index(component) + 1 if several else ''}_"
