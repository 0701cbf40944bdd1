"""Settings of the prompts, of sampling, of the gradient estimator and of the samplers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PrivateAttr, model_validator

from sdo_ray import policy_gradient
from sdo_ray.cheap_steps.settings import CheapStepsSettings
from sdo_ray.prompts.inputs import Row, call_arguments
from sdo_ray.settings import MAY_CHANGE, ON_PURPOSE, Settings, SettingsPath

Backward = Literal["sampler", "trainer"]
"""Where the denoiser's backward pass runs."""
GradientType = Literal["float32", "bfloat16"]
"""What a gradient travels as; bfloat16 has float32's range."""
Decode = Literal["whole", "slices", "tiles", "frames"]
"""How an autoencoder decodes."""
KeptGraph = Literal["retain", "steps", "recompute"]
"""Which activations a batch that waits for its rewards holds, and does not have made again: those of the kept steps and
of the decoder, those of the kept steps alone, none."""


InputColumns = Annotated[
    dict[str, str],
    Field(
        description="Arguments of the pipeline's call and the columns of the prompts' file that they come from: "
        "`{image: source, mask_image: mask}`. Columns of files (images; sounds as WAV), whose relative paths start "
        "where the prompts' file is, of numbers, or of texts."
    ),
]
"""What the pipeline is given besides prompts."""


class PromptSettings(Settings):
    """Where prompts come from, and what else the pipeline is given with them."""

    train: SettingsPath = Field(
        description="File of the prompts to learn on: .parquet, .csv, .tsv, .json, .jsonl or .txt, or a directory of "
        "parquet files. Relative paths start at the settings file."
    )
    column: str = Field("prompt", description="The column that holds the prompts.")
    inputs: InputColumns = Field(default_factory=dict)


class SamplingSettings(CheapStepsSettings):
    """How the pipeline is called."""

    num_inference_steps: int = Field(50, ge=1, description="Sampling steps N.")
    guidance_scale: float | None = Field(
        5.0,
        ge=0,
        description="Classifier-free guidance. null: for pipelines whose call takes none, such as HunyuanVideo 1.5's.",
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="Further arguments of the pipeline's call, such as `height`, `width` or `negative_prompt`.",
    )
    decode: Decode = Field(
        "whole",
        description="How latents are decoded: all images of a batch at once, `slices` one after the other, `tiles` in "
        "overlapping tiles, which takes the least memory and shows faintly where they meet, `frames` some frames of a "
        "video after the others, where its autoencoder can. Those of Wan, Qwen-Image and CogVideoX always do: with "
        "them `frames` is how a backward pass decodes again. It changes nothing where no backward pass does, and is "
        "refused beside `kept_graph: retain`.",
    )

    _example: Row = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _steps_are_there(self) -> Self:
        if self.cache is not None:
            self.cache.check_steps(self.num_inference_steps)
        return self

    @property
    def negative_prompts(self) -> dict[str, list[str]]:
        """Setting -> what it has, of those that are texts."""
        found = {name: text for name, text in self.options.items() if name.startswith("negative_prompt")}
        return {f"sampling.options.{name}": [text] for name, text in found.items() if isinstance(text, str)}

    @property
    def example(self) -> Row:
        """Inputs of a prompt, of a pipeline that takes some."""
        return self._example

    def with_example_of(self, inputs: Sequence[Row]) -> Self:
        """The same for a pipeline that is given inputs with each prompt, such as the first of these, if any."""
        made = self.model_copy()
        made._example = inputs[0] if inputs else {}
        return made

    def pipeline_call(self, prompts: Sequence[str], inputs: Sequence[Row] = ()) -> dict[str, Any]:
        """Keyword arguments for the pipeline to draw one image a prompt.

        Args:
            prompts: B prompts.
            inputs: of each; none: the example's, of a pipeline that takes some.
        """
        # diffusers wants as many of these texts as prompts; one in the settings is for all images. Settings have no
        # tuples, which are what SDXL takes its sizes as.
        options = {
            name: [value] * len(prompts)
            if name.startswith(("negative_prompt", "prompt_")) and isinstance(value, str)
            else tuple(value)
            if name.endswith(("_size", "_top_left")) and isinstance(value, list)
            else value
            for name, value in self.options.items()
        }
        return {
            "prompt": list(prompts),
            "num_inference_steps": self.num_inference_steps,
            **({} if self.guidance_scale is None else {"guidance_scale": self.guidance_scale}),
            **options,
            **call_arguments(inputs or ([self._example] * len(prompts) if self._example else [])),
        }


class PlanSettings(Settings):
    """The estimator: of rewards' gradients, see docs/method.md, or for those without, see docs/black-box.md."""

    name: str = Field(
        "sdo",
        description="A registered plan, or `package.module:function`. For rewards without a gradient: `group`, or "
        "another of docs/black-box.md.",
    )
    options: dict[str, Any] = Field(default_factory=dict, description="The plan's own options, such as `K: 1`.")

    @property
    def is_policy_gradient(self) -> bool:
        """Whether rewards without a gradient can teach by it."""
        return self.name in policy_gradient.available()


class SamplerSettings(Settings):
    """The actors that sample and differentiate."""

    count: Annotated[int, MAY_CHANGE] = Field(1, ge=1, description="Number of sampler actors.")
    batch_size: int = Field(8, ge=1, description="Images a sampler makes at once.")
    num_cpus: Annotated[float, MAY_CHANGE] = Field(1.0, ge=0, description="CPU cores of each, and its torch threads.")
    num_gpus: Annotated[float, MAY_CHANGE] = Field(
        0.0, ge=0, le=1, description="GPUs of each; at most 1, as a sampler computes on one."
    )
    tf32: bool = Field(
        True,
        description="Whether GPUs may round what float32 products multiply to 10 bits (TensorFloat-32), for speed.",
    )
    channels_last: bool = Field(
        False, description="Whether weights lie in memory with the channels last, as tensor cores read convolutions."
    )
    text_encoders: Annotated[Literal["keep", "offload"], ON_PURPOSE] = Field(
        "keep",
        description="Where frozen text encoders are between batches. `keep`: on the device. `offload`: in main memory; "
        "a prompt is encoded by itself, and up to 2 GiB of what each encoder returned are remembered: once, while that "
        "is enough for all prompts. A language model asked for all its hidden states returns about 0.2 GB a prompt. "
        "Embeddings are the same but for rounding.",
    )
    compile: bool = Field(
        False,
        description="Whether denoisers are compiled (`torch.compile`, block by block where diffusers can), which takes "
        "its time in each sampler's first batch.",
    )


class LearningSamplerSettings(SamplerSettings):
    """The actors that sample and differentiate, for rewards that may be slow."""

    batch_size: Annotated[int, ON_PURPOSE] = Field(8, ge=1, description="Images a sampler makes at once.")
    at_least: Annotated[int | None, MAY_CHANGE] = Field(
        None,
        ge=1,
        description="How many of `count` there must be room for at a start; the others join when a cluster that grows "
        "has room for them. None: all.",
    )

    @property
    def rows_per_contribution(self) -> int:
        """Rows that a sampler makes one contribution of."""
        return self.batch_size * self.accumulate

    in_flight: Annotated[int, MAY_CHANGE] = Field(
        2,
        ge=1,
        description="Batches in the hands of each at once: while one waits for its rewards, the next is sampled. What "
        "memory a waiting one holds is for `sampling.kept_graph`.",
    )
    timeout: Annotated[float, MAY_CHANGE] = Field(
        3600.0,
        gt=0,
        description="Seconds for sampling a batch, and again for its backward pass; then the actor is replaced, and "
        "the batch tried again.",
    )
    lost_after: Annotated[float, MAY_CHANGE] = Field(
        300.0,
        ge=30,
        description="Seconds after which a sampler with batches in its hands and without a sign of life is lost, as "
        "where its node is gone and no other has room. Trainers then go back to the newest checkpoint, which is one of "
        "`trainers.max_failures`, and the samplers that are left are given its batches.",
    )
    accumulate: Annotated[int, ON_PURPOSE] = Field(
        1,
        ge=1,
        description="Batches whose gradients a sampler adds up before they travel: an update then takes as many fewer "
        "messages, and its trainers less work.",
    )
    gradient_dtype: GradientType = Field(
        "float32",
        description="What gradients travel as to the trainers, which add them up in float32. bfloat16 halves them, "
        "with a relative error of up to 0.4 % of each value.",
    )
