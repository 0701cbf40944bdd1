"""How a registered model's images are made, kept as JSON beside its files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # Which imports torch, and the help of commands waits for nothing.
    from sdo_ray.rollout.settings import Decode, SamplingSettings

FILE = "recipe.json"
CHEAP = ("cache", "fast_copy")
"""Settings of sampling by which steps are not what the model alone computes."""


@dataclass(frozen=True)
class Recipe:
    """The call that made the images a model was evaluated by. With the same seeds it makes them again."""

    num_inference_steps: int
    """Sampling steps."""
    guidance_scale: float | None
    """Classifier-free guidance; None where the pipeline's call takes none."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the pipeline's call; JSON."""
    dtype: str = "float32"
    """Type of the weights, and of what is computed with them."""
    batch_size: int = 8
    """Images made at once; sums, and so the last bits of an image, depend on it."""
    base: str | None = None
    """Hub id of the base model, if it is named rather than copied."""
    revision: str | None = None
    """Its commit."""
    variant: str | None = None
    """The variant of the weights of the base, named or copied; see `sdo_ray.models.reference`."""
    decode: Decode = "whole"
    """How latents are decoded; see `SamplingSettings`."""
    cache: dict[str, Any] | None = None
    """Which steps are not computed in full; JSON of `CacheSettings`."""
    fast_copy: dict[str, Any] | None = None
    """What the denoiser's steps run on; JSON of `CopySettings`."""
    inputs: dict[str, str] = field(default_factory=dict)
    """Argument of the call that each prompt brings along -> what it is, see `sdo_ray.prompts.inputs.kinds_of`."""
    dtypes: dict[str, str] = field(default_factory=dict)
    """Component -> its type, where it is another; see `sdo_ray.models.precision.component_types`."""

    @staticmethod
    def of(sampling: SamplingSettings, dtype: str, batch_size: int, dtypes: Mapping[str, str] | None = None) -> Recipe:
        """The recipe of images made by a run's settings."""
        from sdo_ray.prompts.inputs import kinds_of

        steps, guidance, options = sampling.num_inference_steps, sampling.guidance_scale, dict(sampling.options)
        cheap = {name: made.to_dict() for name in CHEAP if (made := getattr(sampling, name)) is not None}
        return Recipe(
            steps,
            guidance,
            options,
            dtype,
            batch_size,
            decode=sampling.decode,
            inputs=kinds_of(sampling.example),
            dtypes=dict(dtypes or {}),
            **cheap,
        )


def write_recipe(directory: Path, recipe: Recipe) -> Path:
    """Keep a recipe in a directory; returns the file."""
    file = directory / FILE
    file.write_text(json.dumps(asdict(recipe), indent=2))
    return file


def read_recipe(directory: Path) -> Recipe:
    """The recipe in a directory."""
    return Recipe(**json.loads((directory / FILE).read_text()))
