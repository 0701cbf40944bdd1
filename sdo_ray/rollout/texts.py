"""Text encoders that leave the device: a prompt is encoded by itself, and what came out is remembered.

So each is encoded once, while what an encoder returned for all of them fits `LIMIT`. A language model that is asked for
all its hidden states returns about 0.2 GB a prompt, of which little fits.

By the calls of the encoders, whatever a pipeline makes of what they return: a row of a call's arguments (token ids, a
mask) stands for a prompt. That rows are encoded one by one makes a prompt's embedding the same bits in every batch.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from sdo_ray.backprop.patches import replace_call
from sdo_ray.backprop.tensors import floating, leaves, map_leaves, rebuilt
from sdo_ray.settings import Problem, SettingsError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

LIMIT = 2 * 2**30
"""Bytes of main memory for what an encoder returned; beyond, what was not asked for the longest time goes first."""

_PARTS = re.compile(r"\btext_encoder\w*\.(get_input_embeddings|get_text_features)\(")
"""What some pipelines use of an encoder; what they do with `clip_skip` alone is not among these."""

_TOLD_APART = (torch.Tensor, bool, int, float, str, type(None), torch.dtype)
"""What a call's arguments may be: by contents, or by how they print."""


def is_text_encoder(name: str) -> bool:
    """Whether a pipeline's component is one, by its name."""
    return name.startswith("text_encoder")


def check_called_whole(pipeline: type[DiffusionPipeline]) -> None:
    """Refuse a pipeline that uses text encoders otherwise than by calling them, which would not bring them back.

    By its source text; code without any is believed.

    Raises:
        SettingsError: it does.
    """
    try:
        found = _PARTS.search(inspect.getsource(pipeline))
    except OSError:
        return
    if found is not None:
        got = f"got 'offload', but a {pipeline.__name__} uses {found[1]} of an encoder by itself"
        raise SettingsError(Problem("samplers.text_encoders", got, fix="choose 'keep'"))


def offload_text_encoders(pipeline: DiffusionPipeline, limit: int = LIMIT) -> None:
    """Have the pipeline's text encoders on the device only while they encode what they have not encoded before.

    Args:
        pipeline: on its device.
        limit: see `LIMIT`.

    Raises:
        SettingsError: a text encoder is trained, and so returns something else every time; or see `check_called_whole`.
    """
    if pipeline.device.type != "cpu":
        check_called_whole(type(pipeline))
    found = {name: part for name, part in pipeline.components.items() if is_text_encoder(name)}
    modules = {name: part for name, part in found.items() if isinstance(part, torch.nn.Module)}
    for name, module in modules.items():
        if any(p.requires_grad for p in module.parameters()):
            got = f"got 'offload', but {name} is trained"
            raise SettingsError(Problem("samplers.text_encoders", got, fix="choose 'keep'"))
    for module in modules.values():
        device = next(module.parameters()).device
        replace_call(module, EncodedOnce(module, device, limit))
        module.to("cpu")


class EncodedOnce:
    """What a text encoder returns, by rows, encoded or remembered; stands in for its call.

    Args:
        module: the encoder, frozen.
        device: where it encodes, and what it returns is wanted.
        limit: bytes that are remembered.
    """

    def __init__(self, module: torch.nn.Module, device: torch.device, limit: int) -> None:
        self._module, self._device, self._limit = module, device, limit
        self._known, self._size = OrderedDict[bytes, Any](), 0

    def __call__(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What `call(*args, **kwargs)` returns, on the device; without what is no tensor, such as keys and values.

        Calls whose arguments or results are not of rows are made as they are.
        """
        args, kwargs = map_leaves(self._on_device, (args, kwargs))
        if (count := _count_rows((args, kwargs))) is None:
            return self._encoded(call, args, kwargs)
        asked = [map_leaves(partial(_row, i), (args, kwargs)) for i in range(count)]
        keys = [_key(row) for row in asked]
        missing = {key: row for key, row in zip(keys, asked, strict=True) if key not in self._known}
        rows = {key: self._known[key] for key in keys if key not in missing}
        if missing:
            with self._working():
                for key, (row_args, row_kwargs) in missing.items():
                    with torch.no_grad():
                        rows[key] = _on_cpu(call(*row_args, **row_kwargs))
                    if not _is_row(rows[key]):
                        return call(*args, **kwargs)
        for key in keys:
            self._remember(key, rows[key])
        parts = zip(*(floating(rows[key]) for key in keys), strict=True)
        return rebuilt(rows[keys[0]], (torch.cat(part).to(self._device) for part in parts))

    def _encoded(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with self._working():
            return call(*args, **kwargs)

    @contextmanager
    def _working(self) -> Iterator[None]:
        self._module.to(self._device)
        try:
            yield
        finally:
            self._module.to("cpu")

    def _on_device(self, leaf: Any) -> Any:
        return leaf.to(self._device) if isinstance(leaf, torch.Tensor) else leaf

    def _remember(self, key: bytes, row: Any) -> None:
        if key not in self._known:
            self._known[key], self._size = row, self._size + _bytes(row)
        self._known.move_to_end(key)
        while self._size > self._limit:
            self._size -= _bytes(self._known.popitem(last=False)[1])


def _count_rows(tree: Any) -> int | None:
    """Of the tensors in a call's arguments; None if they have not as many, or there is something else among these."""
    found = list(leaves(tree))
    tensors = [leaf for leaf in found if isinstance(leaf, torch.Tensor)]
    sizes = {len(x) if x.dim() else 0 for x in tensors}
    plain = all(isinstance(leaf, _TOLD_APART) for leaf in found)
    return sizes.pop() or None if plain and len(sizes) == 1 else None


def _row(i: int, leaf: Any) -> Any:
    return leaf[i : i + 1] if isinstance(leaf, torch.Tensor) else leaf


def _key(row: Any) -> bytes:
    found = hashlib.sha256()

    def add(leaf: Any) -> None:
        if isinstance(leaf, torch.Tensor):
            found.update(f"{leaf.dtype} {tuple(leaf.shape)}".encode())
            found.update(leaf.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        else:
            found.update(repr(leaf).encode())

    args, kwargs = row
    map_leaves(add, args)
    for name, value in sorted(kwargs.items()):
        found.update(name.encode())
        map_leaves(add, value)
    return found.digest()


def _on_cpu(tree: Any) -> Any:
    """What a call returned, its tensors alone."""
    if isinstance(tree, torch.Tensor):
        return tree.cpu()
    if isinstance(tree, Mapping):
        fields = {name: _on_cpu(value) for name, value in tree.items()}
        return fields if type(tree) is dict else type(tree)(**fields)
    if isinstance(tree, list | tuple):
        return type(tree)(_on_cpu(value) for value in tree)
    return None


def _is_row(tree: Any) -> bool:
    return all(
        leaf is None or (isinstance(leaf, torch.Tensor) and leaf.is_floating_point() and leaf.dim() and len(leaf) == 1)
        for leaf in leaves(tree)
    )


def _bytes(row: Any) -> int:
    return sum(x.numel() * x.element_size() for x in floating(row))
