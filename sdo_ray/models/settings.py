"""Settings of the model that is aligned and of its adapter."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sdo_ray.settings import Settings


class LoraSettings(Settings):
    """A LoRA adapter (arXiv 2106.09685) on the denoiser."""

    rank: int = Field(8, ge=1, description="Rank of the two factors of each adapted layer.")
    alpha: float = Field(8.0, gt=0, description="Scale; the update of a layer is alpha / rank * B A.")
    targets: list[str] = Field(
        default=["to_q", "to_k", "to_v", "to_out.0"],
        min_length=1,
        description="Endings of the names of the denoiser's linear and convolution layers to adapt.",
    )


class ModelSettings(Settings):
    """The base model."""

    base: str = Field(
        description="What to align: `zoo://NAME`, a directory in diffusers format, or a hub id such as `org/name`."
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="Type of the frozen weights and of sampling. The adapter is always float32."
    )
    lora: LoraSettings = Field(default_factory=LoraSettings, description="The adapter that is trained.")
