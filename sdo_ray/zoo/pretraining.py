"""Pretraining of a small text-to-image model on captioned pictures: autoencoder, UNet, then a pipeline directory."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

import torch
import yaml
from diffusers import AutoencoderKL, StableDiffusionPipeline

from sdo_ray.zoo.autoencoder import AutoencoderSettings, encode, train_autoencoder
from sdo_ray.zoo.captioned import Captioned, DataSettings, read_captioned
from sdo_ray.zoo.checks import require
from sdo_ray.zoo.denoiser import DenoiserSettings, Latents, SheetSettings, make_scheduler, start_unet, train_denoiser
from sdo_ray.zoo.fitting import Report
from sdo_ray.zoo.text import load_text


@dataclass(frozen=True)
class PretrainSettings:
    """One run of pretraining."""

    output: str
    """Directory of the run: states and sheets of both stages, and the finished pipeline in `pipeline/`."""
    data: DataSettings
    autoencoder: AutoencoderSettings
    unet: DenoiserSettings
    sheet: SheetSettings
    seed: int = 0
    """Source of everything random, >= 0."""
    device: str = "cpu"
    """`cpu` or a CUDA device: `cuda`, `cuda:1`."""

    def __post_init__(self) -> None:
        require("seed", self.seed, self.seed >= 0, ">= 0")
        require("device", self.device, self.device.split(":")[0] in ("cpu", "cuda"), "cpu, cuda or cuda:INDEX")


def pretrain(settings: PretrainSettings, report: Report) -> Path:
    """Runs or continues the run in `settings.output` and returns the directory of the finished pipeline.

    Raises:
        ValueError: the directory holds a run with other settings, or the parts given do not fit together.
        FileNotFoundError: the data is not where the settings say.
    """
    output = Path(settings.output)
    claim(output, settings)
    data = read_captioned(settings.data)
    report(f"{len(data.images)} pictures of {settings.data.size} x {settings.data.size} from {settings.data.path}")

    vae = train_autoencoder(
        settings.autoencoder, data, settings.data.flip, settings.seed, output / "autoencoder", settings.device, report
    )
    pipeline = assemble(settings, vae)
    latents = prepare_latents(pipeline, data, settings.data.flip)
    train_denoiser(settings.unet, latents, pipeline, settings.sheet, settings.seed, output / "unet", report)

    pipeline.to("cpu").save_pretrained(output / "pipeline", safe_serialization=True)
    report(f"finished: StableDiffusionPipeline.from_pretrained({str(output / 'pipeline')!r})")
    return output / "pipeline"


def claim(output: Path, settings: PretrainSettings) -> None:
    """Writes the settings into a new run's directory, or checks that they are those of the run found there."""
    path = output / "settings.yaml"
    text = yaml.safe_dump(yaml.safe_load(yaml.safe_dump(_plain(asdict(settings)))), sort_keys=False)
    if path.exists():
        before, now = (yaml.safe_load(source) for source in (path.read_text(), text))
        changed = [f"{key}: was {old!r}, is {now.get(key)!r}" for key, old in before.items() if now.get(key) != old]
        if changed:
            raise ValueError(
                f"output: {output} holds a run with other settings; continue it with those in {path},"
                f" or name another directory. Changed: {'; '.join(changed)}"
            )
        return
    output.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def assemble(settings: PretrainSettings, vae: AutoencoderKL) -> StableDiffusionPipeline:
    """A stock pipeline of MiniLM, the autoencoder and the UNet that training starts from."""
    tokenizer, text_encoder = load_text()
    side = settings.data.size // 2 ** (len(vae.config.block_out_channels) - 1)
    unet = start_unet(settings.unet, vae.config.latent_channels, side, text_encoder.config.hidden_size, settings.seed)
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=make_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(settings.device)


@torch.no_grad()
def prepare_latents(pipeline: StableDiffusionPipeline, data: Captioned, flip: bool) -> Latents:
    """Encodes every picture, and its mirror image with `flip`, and every different caption once."""
    views = [data.images, data.images.flip(-1)] if flip else [data.images]
    device = str(pipeline.device)
    z = torch.stack([encode(pipeline.vae, view, device) for view in views]) * pipeline.vae.config.scaling_factor

    # A dictionary keeps the order of first appearance; the empty caption comes first.
    numbers = {caption: i for i, caption in enumerate(dict.fromkeys(["", *chain.from_iterable(data.captions)]))}
    texts = []
    for part in torch.arange(len(numbers)).split(256):
        captions = list(numbers)[int(part[0]) : int(part[-1]) + 1]
        texts.append(
            pipeline.encode_prompt(captions, device, num_images_per_prompt=1, do_classifier_free_guidance=False)[
                0
            ].cpu()
        )
    choices = tuple(tuple(numbers[caption] for caption in captions) for captions in data.captions)
    return Latents(z, torch.cat(texts), choices)


def _plain(value: object) -> object:
    """Tuples as lists, so that the settings are plain YAML."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
