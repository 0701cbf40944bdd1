"""Settings of the model that is aligned and of what is trained in it."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from sdo_ray.models.reference import Reference, parse
from sdo_ray.models.trained.diffit import DiffFitSettings
from sdo_ray.models.trained.lora_settings import LoraSettings
from sdo_ray.models.trained.registry import KINDS, Kind
from sdo_ray.settings import Settings

Dtype = Literal["float32", "bfloat16", "float16"]

ComponentTypes = Annotated[
    dict[str, Dtype],
    Field(
        description="Types of single components, such as `vae: float32`. A decoder that overflows in float16 "
        "(`force_upcast` in its configuration) is float32 with `dtype: float16` anyway.",
    ),
]
CheckpointBlocks = Annotated[
    bool | None,
    Field(
        description="Whether blocks of denoiser and decoder keep their inputs alone and are run again by the backward "
        "pass: the same gradient for a fraction of the memory, and one more forward pass of what has a graph. null: on "
        "GPUs.",
    ),
]
"""See `sdo_ray.models.checkpointing.checkpoint_as_set`."""


class ModelSettings(Settings):
    """The base model."""

    base: str = Field(
        description="What to align: `zoo://NAME`, a directory in diffusers format, or a hub id such as `org/name`."
    )
    revision: str | None = Field(
        None,
        min_length=1,
        description="Branch, tag or commit of a hub model; none: its main branch. The commit that it is when the run "
        "starts is kept with the run, and read by every node.",
    )
    variant: str | None = Field(
        None,
        min_length=1,
        description="The middle of the names of the weights: `fp16` for `diffusion_pytorch_model.fp16.safetensors`.",
    )
    pipeline: str | None = Field(
        None,
        pattern=r"^[\w.]+:\w+$",
        description="Class of a pipeline of your own, `package.module:Class`, which `base` was saved with; none: a "
        "class of diffusers. See docs/own-model.md.",
    )
    dtype: Dtype = Field(
        "float32",
        description="Type of the weights and of sampling. Trainers hold what is trained in float32 (`trainers.dtype`), "
        "samplers a copy of this type.",
    )
    dtypes: ComponentTypes = Field(default_factory=dict)
    quantize: dict[str, Literal["int8", "nf4"]] = Field(
        default_factory=dict,
        description="Components whose linear layers' frozen weights are rounded to 8 bits (torchao, the extra "
        "`quantised`) or to 4 (`nf4`, the extra `bitsandbytes`) once they are loaded, such as `transformer: int8` or "
        "`text_encoder_2: nf4`; what is trained, a LoRA, is not. Evaluations draw with them too; the LoRA that comes "
        "out fits the base as it was.",
    )
    checkpoint_blocks: CheckpointBlocks = None
    train: Literal[*KINDS] = Field(  # type: ignore[valid-type]
        "lora", description="What is trained: an adapter, biases and scales, or the whole denoiser."
    )
    lora: LoraSettings = Field(default_factory=LoraSettings, description="With `train: lora`.")
    diffit: DiffFitSettings = Field(default_factory=DiffFitSettings, description="With `train: diffit`.")

    @property
    def reference(self) -> str:
        """What names the base model for whoever reads it; see `sdo_ray.models.reference`."""
        named = parse(self.base)
        revision, variant = self.revision or named.revision, self.variant or named.variant
        return str(Reference(named.base, revision, variant, self.pipeline or named.pipeline))

    @property
    def kind(self) -> Kind:
        """What is trained."""
        return KINDS[self.train]

    @property
    def kind_settings(self) -> Any:
        """The section of what is trained; None for a kind without settings."""
        return getattr(self, self.train, None)

    @property
    def unrounded(self) -> ModelSettings:
        """The same with the weights that the base has."""
        return self.model_copy(update={"quantize": {}})

    def checkpoints_blocks(self, device: str) -> bool:
        """What `checkpoint_blocks` means on a type of device."""
        return device == "cuda" if self.checkpoint_blocks is None else self.checkpoint_blocks

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        """Settings of a kind that is not trained would do nothing, which nobody who changes them expects."""
        for other, section in type(self).model_fields.items():
            if other == self.train or other not in KINDS:
                continue
            if getattr(self, other) != section.get_default(call_default_factory=True):
                raise ValueError(
                    f"`{other}` is given, but `train` is {self.train!r}; remove the one, on the command line with "
                    f"`--set model.{other}=null`, or change the other"
                )
        return self

    @model_validator(mode="after")
    def _rounds_what_is_frozen(self) -> Self:
        if self.quantize and (self.train != "lora" or self.lora.reads_weights):
            trained = "`train: lora`, without `lora.dora` and with another `lora.init` than `pissa`"
            raise ValueError(
                f"`quantize` rounds weights that what is trained is made of; give {trained}, or leave it out"
            )
        return self
