"""What samplers need, from the sizes of a model: bytes, and operations of an update."""

from __future__ import annotations

from dataclasses import dataclass

from sdo_ray.rollout.settings import KeptGraph
from sdo_ray.rollout.texts import is_text_encoder
from sdo_ray.sizing.sizes import Sizes


@dataclass(frozen=True)
class Batches:
    """How a sampler works."""

    images: int
    """Of a batch."""
    kept: int
    """Kept steps."""
    steps: int
    """Sampling steps."""
    in_flight: int
    """Batches in its hands at once."""
    kept_graph: KeptGraph
    offloads: bool = False
    """Whether text encoders are there only while they encode, before a batch's first step."""


def sampler_bytes(sizes: Sizes, how: Batches) -> tuple[float, float]:
    """Of a sampler's weights, and of the activations that are alive at most, without what the allocator wastes.

    Text encoders that are offloaded count, one at a time, as what is alive at most.

    Text encoders' activations are not counted: they are gone before the first step.
    """
    passing, waiting = how.images * max(sizes.step.passing, sizes.decoder.passing), 0.0
    if how.kept_graph == "recompute":  # an image at a time
        learning = max(sizes.step.held, sizes.decoder.held)
    else:
        saved, step = how.kept * sizes.step.saved, sizes.step.held - sizes.step.saved
        if how.kept_graph == "steps":  # the decoder's are those of an image at a time
            beyond = max(how.images * step, sizes.decoder.held)
        else:
            saved += sizes.decoder.saved
            beyond = how.images * max(step, sizes.decoder.held - sizes.decoder.saved)
        learning = how.images * how.in_flight * saved + beyond
        # The next batch is sampled while others wait.
        waiting = how.images * (how.in_flight - 1) * saved
        passing += waiting
    if not how.offloads:
        return sum(sizes.weights.values()), max(passing, learning)
    encoders = {name: size for name, size in sizes.weights.items() if is_text_encoder(name)}
    encoding = waiting + max(encoders.values(), default=0)
    return sum(sizes.weights.values()) - sum(encoders.values()), max(passing, learning, encoding)


def image_operations(sizes: Sizes, how: Batches) -> tuple[float, float]:
    """Floating-point operations of plain sampling of an image, and of learning from it too, rewards apart.

    With "steps" at most: all frames of a video are counted as decoded again.
    """
    plain = how.steps * sizes.step.forward + sizes.decoder.forward
    if how.kept_graph == "recompute":
        return plain, plain + how.kept * sizes.step.learning + sizes.decoder.learning
    back = how.kept * (sizes.step.learning - sizes.step.forward) + sizes.decoder.learning
    return plain, plain + back - (sizes.decoder.forward if how.kept_graph == "retain" else 0)
