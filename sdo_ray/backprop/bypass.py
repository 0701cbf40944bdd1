"""What pipelines do with finished images that a graph does not survive, passed by while they are traced."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

CHECKS = ("safety_checker", "watermark", "watermarker")
"""Where diffusers pipelines keep what looks at finished images or marks them; None, and they do without."""


@contextmanager
def without_checks(pipeline: Any) -> Iterator[None]:
    """Within the block no safety checker looks at the pipeline's images, and no watermark is put on them.

    Both work on numpy arrays. They are there again afterwards, and in what is saved. Cosmos insists on its own: its
    license does, so it stays.
    """
    # By `vars`, because a pipeline writes a component that is set into its configuration.
    found = {
        name: part
        for name in CHECKS
        if (part := vars(pipeline).get(name)) is not None and ".cosmos." not in type(part).__module__
    }
    vars(pipeline).update(dict.fromkeys(found))
    try:
        yield
    finally:
        vars(pipeline).update(found)


@contextmanager
def converted_anew(module: torch.nn.Module) -> Iterator[None]:
    """Within the block `module.to(...)` gives the module new parameters, rather than old ones other contents.

    Some pipelines decode in float32 and turn their half-precision autoencoder back afterwards: what its graph has saved
    must stay float32. Only for modules that are not trained, whose parameters nobody else holds.
    """
    to = module.to

    def anew(*args: Any, **kwargs: Any) -> Any:
        before = torch.__future__.get_overwrite_module_params_on_conversion()
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        try:
            return to(*args, **kwargs)
        finally:
            torch.__future__.set_overwrite_module_params_on_conversion(before)

    vars(module)["to"] = anew
    try:
        yield
    finally:
        del vars(module)["to"]
