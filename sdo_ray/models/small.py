"""A small stand-in for a large model: its own classes, few and narrow layers, random weights."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdo_ray.models.load import ZOO, check_components, component_entries, load_index, pipeline_class, reading, resolve
from sdo_ray.models.quiet import quiet_libraries
from sdo_ray.models.skeletons import built, component_classes, configuration, is_network, is_of_transformers, read_part

LARGE = 2**30
"""Bytes of weights above which a model is large."""
MOST = 2 * 10**9
"""Parameters that a stand-in may have: vocabularies, and the widths that its parts share, stay as they are."""

TWO = 2
"""Layers that stay of many, because some pipelines read the last but one."""
FEW = frozenset(
    {
        "depth",
        "layers_per_block",
        "n_layers",
        "n_refiner_layers",
        "num_cond_layers",
        "num_decoder_layers",
        "num_hidden_layers",
        "num_joint_layers",
        "num_layers",
        "num_refiner_layers",
        "num_single_layers",
    }
)
"""What configurations call numbers of layers."""
NARROW = frozenset({"d_ff", "ffn_dim", "intermediate_size", "mlp_dim"})
"""What they call widths that no other part sees."""


def is_large(base: str) -> bool:
    """Whether a base model is too large to be tried as it is; one on the hub is taken to be."""
    if base.startswith(ZOO):
        return False
    directory = Path(resolve(base))
    return not directory.is_dir() or sum(file.stat().st_size for file in directory.rglob("*.safetensors")) > LARGE


def save_small(base: str, directory: Path, *, heads: int | None) -> None:
    """Write a stand-in in diffusers format; of the base only configurations and vocabularies are read.

    Args:
        base: the base model.
        directory: where to.
        heads: attention heads of its transformers, where these alone make the width; None keeps them, for a width that
            another setting repeats.

    Raises:
        SettingsError: the base cannot be read, or has code of its own.
        ValueError: it would still be too large.
    """
    from accelerate import init_empty_weights

    check_components(base)
    kind, index = pipeline_class(base), load_index(base)
    with quiet_libraries(), reading(base):
        given = {name: index.get(name) for name in inspect.signature(kind.__init__).parameters if name != "self"}
        named = component_entries(given)
        kinds = component_classes(given)
        parts: dict[str, Any] = dict.fromkeys(named)
        networks = {
            # A text encoder's width is not made of its heads.
            name: _smaller(configuration(part, base, name), None, _layers_read(kind))
            if is_of_transformers(part)
            else _smaller(configuration(part, base, name), heads)
            for name, part in kinds.items()
            if is_network(part)
        }
        with init_empty_weights():
            skeletons = [built(kinds[name], config) for name, config in networks.items()]
        for skeleton in skeletons:
            if is_of_transformers(type(skeleton)):
                skeleton.tie_weights()  # without weights each name has its own; UMT5's vocabulary has two names
        if (size := sum(p.numel() for skeleton in skeletons for p in skeleton.parameters())) > MOST:
            raise ValueError(f"even with few layers a part it has {size / 1e9:.1f} billion parameters")
        for name, part in kinds.items():
            parts[name] = (
                built(part, networks[name]) if name in networks else read_part(part.from_pretrained, base, name)
            )
        kind(**given | parts).save_pretrained(directory)


def _layers_read(pipeline: type) -> int:
    """Layers of a text encoder that a pipeline needs: the call of Flux 2 reads some in the middle, by their numbers."""
    read = inspect.signature(pipeline.__call__).parameters.get("text_encoder_out_layers")
    return TWO if read is None else max(TWO, *read.default)


def _smaller(config: Mapping[str, Any], heads: int | None, layers: int = TWO) -> dict[str, Any]:
    """A configuration of the same kind with less of what there is many times.

    Args:
        config: of a network.
        heads: attention heads in place of more than two; None: as many as there are.
        layers: at most so many of each list of layers; where a width is made of groups, it is made of one.
    """
    groups, channels = config.get("norm_num_groups") or 32, "block_out_channels" in config

    def smaller(key: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            return _smaller(value, None, layers)
        if isinstance(value, list | tuple):
            if key == "layer_types":
                return value[:layers]
            return [smaller(key, entry) for entry in value]
        if not isinstance(value, int) or isinstance(value, bool):
            return value
        if key in FEW:
            return min(value, layers)
        if key in NARROW:
            return min(value, 64)
        if channels:
            of_unet = {"block_out_channels": groups, "attention_head_dim": 4, "num_attention_heads": 4}
            return min(value, of_unet.get(key, 1 if key == "transformer_layers_per_block" else value))
        if layers > TWO and key in ("num_attention_heads", "num_key_value_heads") and config.get("head_dim"):
            return 1
        if heads and key == "num_attention_heads" and "attention_head_dim" in config:
            return min(value, heads)
        return value

    return {key: smaller(key, value) for key, value in config.items()}
