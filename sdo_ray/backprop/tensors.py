"""Tensors inside arguments and results: denoisers take and give them bare, in lists, in dicts and in dataclasses."""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import torch
from torch.autograd.graph import Node


def leaves(tree: Any) -> Iterator[Any]:
    """What is in `tree`, through lists, tuples and mappings (diffusers' outputs are mappings)."""
    if isinstance(tree, Mapping):
        for value in tree.values():
            yield from leaves(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from leaves(value)
    else:
        yield tree


def floating(tree: Any) -> Iterator[torch.Tensor]:
    """The floating-point tensors in `tree`."""
    return (leaf for leaf in leaves(tree) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point())


def map_leaves(function: Callable[[Any], Any], tree: Any) -> Any:
    """`tree` with `function` applied to what is in it; plain lists, tuples and dicts are rebuilt."""
    if type(tree) is dict:
        return {key: map_leaves(function, value) for key, value in tree.items()}
    if type(tree) in (list, tuple):
        return type(tree)(map_leaves(function, value) for value in tree)
    return function(tree)


def map_floating(function: Callable[[torch.Tensor], torch.Tensor], tree: Any) -> Any:
    """`tree` with `function` applied to its floating-point tensors; plain lists, tuples and dicts are rebuilt."""

    def on_floating(leaf: Any) -> Any:
        return function(leaf) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() else leaf

    return map_leaves(on_floating, tree)


def replace_floating(tree: Any, values: Iterator[torch.Tensor]) -> Any:
    """`tree` with the next of `values` for each of its `floating` tensors; diffusers' outputs are changed in place."""
    if isinstance(tree, torch.Tensor):
        return next(values) if tree.is_floating_point() else tree
    if isinstance(tree, list | tuple):
        return type(tree)(replace_floating(entry, values) for entry in tree)
    if isinstance(tree, Mapping):
        replaced = {key: replace_floating(value, values) for key, value in tree.items()}
        if type(tree) is dict:
            return replaced
        for key, value in replaced.items():
            tree[key] = value  # type: ignore[index]
    return tree


def rebuilt(tree: Any, values: Iterator[torch.Tensor]) -> Any:
    """`tree` anew, diffusers' outputs too, with the next of `values` for each of its `floating` tensors."""
    if isinstance(tree, torch.Tensor):
        return next(values) if tree.is_floating_point() else tree.clone()
    if isinstance(tree, Mapping):
        fields = {key: rebuilt(value, values) for key, value in tree.items()}
        return fields if type(tree) is dict else type(tree)(**fields)
    if isinstance(tree, list | tuple):
        return type(tree)(rebuilt(entry, values) for entry in tree)
    return tree


def with_type(tree: Any, dtype: torch.dtype) -> Any:
    """`tree` anew, with its floating-point tensors of a type."""
    return rebuilt(tree, (x.to(dtype) for x in floating(tree)))


def own_lists(tree: Any) -> Any:
    """`tree` with lists, tuples and dicts of its own, of the same entries: some denoisers take those given apart."""
    return map_floating(lambda x: x, tree)


def holders(tree: Any) -> Iterator[Any]:
    """The objects in `tree` that keep things of their own, such as a cache of keys and values."""
    for leaf in leaves(tree):
        if hasattr(leaf, "__dict__") and not isinstance(leaf, torch.Tensor | torch.nn.Module) and not callable(leaf):
            yield leaf


def detach_attributes(holder: Any) -> None:
    """Take the graph from the tensors that an object keeps as attributes, in lists or dicts too."""
    for name, value in vars(holder).items():
        if any(x.requires_grad for x in floating(value)):
            setattr(holder, name, map_floating(torch.Tensor.detach, value))


def detach_held(tree: Any) -> None:
    """Take the graph from the tensors that the holders in `tree` keep, and those that they hold in turn."""
    seen: set[int] = set()
    stack = [tree]
    while stack:
        for holder in holders(stack.pop()):
            # Objects may hold one another.
            if id(holder) not in seen:
                seen.add(id(holder))
                detach_attributes(holder)
                stack.extend(vars(holder).values())


def depends_on(x: torch.Tensor, nodes: Collection[Node]) -> bool:
    """Whether the graph of `x` reaches one of `nodes` (compared by identity; keep them referenced)."""
    if not nodes or x.grad_fn is None:
        return False
    seen: set[Node] = set()
    stack = [x.grad_fn]
    while stack:
        node = stack.pop()
        if node in nodes:
            return True
        if node not in seen:
            seen.add(node)
            stack.extend(n for n, _ in node.next_functions if n is not None)
    return False
