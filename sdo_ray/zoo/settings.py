"""Settings of a pretraining run."""

from __future__ import annotations

from typing import Self

from pydantic import Field, field_validator, model_validator

from sdo_ray.settings import Settings, SettingsPath


class DataSettings(Settings):
    """Where the captioned images are."""

    path: SettingsPath = Field(description="Parquet file. A relative path starts at the settings file.")
    image: str = Field(
        "image", description="Column of encoded images: bytes that Pillow reads, or a struct with them in `bytes`."
    )
    caption: str = Field(
        "caption", description="Column of captions: a string, or a list of strings of which every update draws one."
    )
    size: int = Field(
        64, ge=8, multiple_of=8, description="Side of the square images in pixels; others are resized to it."
    )
    flip: bool = Field(True, description="Show each image as it is and mirrored, half of the time each.")


class FitSettings(Settings):
    """How a model is fitted."""

    updates: int = Field(ge=0, description="Optimizer updates; with 0 the model stays as it started.")
    batch_size: int = Field(32, ge=1, description="Images per update.")
    lr: float = Field(5e-4, gt=0, description="Peak learning rate.")
    warmup: int = Field(200, ge=0, description="Updates of linear warm-up, times a half cosine from the peak to 0.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's decoupled weight decay.")
    ema: float = Field(0.9995, ge=0, lt=1, description="Decay of the averaged weights, which a stage hands on.")
    clip: float = Field(1.0, gt=0, description="Largest norm of the gradient.")
    save_every: int = Field(500, ge=1, description="Updates between saved states, each with an image of the progress.")
    log_every: int = Field(50, ge=1, description="Updates between lines of progress.")


class AutoencoderSettings(FitSettings):
    """The autoencoder and how it is fitted."""

    init_from: SettingsPath | None = Field(
        None,
        description="Directory of an AutoencoderKL in diffusers format to start from, instead of the next three. A "
        "relative path starts at the settings file.",
    )
    channels: list[int] = Field(
        [24, 48, 96],
        min_length=1,
        description="Channels of each level, multiples of 8; every level after the first halves the side.",
    )
    latent_channels: int = Field(4, ge=1, description="Channels of the latents.")
    layers: int = Field(1, ge=1, description="Residual blocks per level.")
    kl: float = Field(1e-4, ge=0, description="Weight of the KL term.")

    @field_validator("channels")
    @classmethod
    def _grouped(cls, channels: list[int]) -> list[int]:
        return _multiples(channels, 8)


class DenoiserSettings(FitSettings):
    """The UNet and how it is fitted."""

    init_from: SettingsPath | None = Field(
        None,
        description="Directory of a UNet2DConditionModel in diffusers format to start from, instead of the next "
        "three. A relative path starts at the settings file.",
    )
    channels: list[int] = Field(
        [64, 128, 192],
        min_length=2,
        description="Channels of each level, multiples of 16 and of `heads`; all levels but the first attend to the"
        " caption.",
    )
    layers: int = Field(1, ge=1, description="Residual blocks per level.")
    heads: int = Field(4, ge=1, description="Attention heads. Few: many small heads are slow on a CPU.")
    min_snr: float = Field(5.0, gt=0, description="gamma of the min-SNR weighting, arXiv 2303.09556.")
    empty_captions: float = Field(0.1, ge=0, lt=1, description="Share of captions replaced by the empty one.")

    @field_validator("channels")
    @classmethod
    def _grouped(cls, channels: list[int]) -> list[int]:
        return _multiples(channels, 16)

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if any(c % self.heads for c in self.channels):
            raise ValueError(f"heads {self.heads} does not divide all channels {self.channels}; change one of them")
        return self


class SheetSettings(Settings):
    """The images that show how far training is: the same prompts and the same noise every time."""

    prompts: list[str] = Field(min_length=1, description="One column each.")
    seeds: int = Field(2, ge=1, description="Images of each prompt, one row each.")
    steps: int = Field(20, ge=1, description="Sampling steps.")
    guidance: float = Field(3.0, ge=1, description="Scale of classifier-free guidance.")


class PretrainSettings(Settings):
    """One run of pretraining."""

    output: str = Field(
        description="Directory of the run: states and sheets of both stages, and the finished model in `pipeline/`."
    )
    data: DataSettings
    autoencoder: AutoencoderSettings
    unet: DenoiserSettings
    sheet: SheetSettings
    seed: int = Field(0, ge=0, description="Source of everything random.")
    device: str = Field("cpu", pattern=r"^(cpu|cuda(:\d+)?)$", description="`cpu`, `cuda` or `cuda:INDEX`.")

    @model_validator(mode="after")
    def _sides_halve(self) -> Self:
        # A model to start from brings its own number of levels, which is checked when it is loaded.
        if self.autoencoder.init_from is None and self.unet.init_from is None:
            divisor = 2 ** (len(self.autoencoder.channels) + len(self.unet.channels) - 2)
            if self.data.size % divisor:
                raise ValueError(
                    f"data.size {self.data.size} cannot be halved as often as the levels of autoencoder.channels and"
                    f" unet.channels ask; make it a multiple of {divisor}, or leave out a level"
                )
        return self


def _multiples(channels: list[int], of: int) -> list[int]:
    if any(c <= 0 or c % of for c in channels):
        raise ValueError(f"legal are positive multiples of {of}")
    return channels
