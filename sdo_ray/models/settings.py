"""Settings of the model that is aligned and of what is trained in it."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

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
    text_encoder_targets: list[str] = Field(
        default=[],
        description="The same for the text encoders, which are adapted too if any are named, such as `q_proj`.",
    )


class DiffFitSettings(Settings):
    """DiffFit (arXiv 2304.06648): biases, the weights of norms, and a scale on the output of some layers."""

    scales: list[str] = Field(
        default=["to_out.0", "ff.net.2"],
        description="Endings of the names of the denoiser's linear and convolution layers that get a scale.",
    )


class ModelSettings(Settings):
    """The base model."""

    base: str = Field(
        description="What to align: `zoo://NAME`, a directory in diffusers format, or a hub id such as `org/name`."
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="Type of the frozen weights and of sampling. What is trained is always float32."
    )
    train: Literal["lora", "diffit", "full"] = Field(
        "lora", description="What is trained: an adapter, biases and scales, or the whole denoiser."
    )
    lora: LoraSettings = Field(default_factory=LoraSettings, description="With `train: lora`.")
    diffit: DiffFitSettings = Field(default_factory=DiffFitSettings, description="With `train: diffit`.")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        """Settings of a kind that is not trained would do nothing, which nobody who changes them expects."""
        for kind, default in {"lora": LoraSettings(), "diffit": DiffFitSettings()}.items():
            if kind != self.train and getattr(self, kind) != default:
                raise ValueError(
                    f"`{kind}` is given, but `train` is {self.train!r}; remove the one, on the command line with "
                    f"`--set model.{kind}=null`, or change the other"
                )
        return self
