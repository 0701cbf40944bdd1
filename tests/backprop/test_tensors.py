"""Tensors inside arguments and results."""

from types import SimpleNamespace

import torch

from sdo_ray.backprop.tensors import detach_held


def test_the_graph_goes_from_objects_that_hold_one_another() -> None:
    """As a cache does whose layers know it."""
    value = 2 * torch.ones(2, requires_grad=True)
    layer = SimpleNamespace(keys={"first": [value]})
    cache = SimpleNamespace(layers=[layer], values=value, length=3)
    layer.cache = cache
    detach_held({"hidden": value, "cache": cache})
    assert not cache.values.requires_grad
    assert not layer.keys["first"][0].requires_grad
    assert cache.layers == [layer]
    assert cache.length == 3
    assert value.requires_grad
