"""Pretraining of a small text-to-image model on captioned images: autoencoder, UNet, then a pipeline directory."""

from __future__ import annotations

import os
from itertools import chain
from pathlib import Path

import torch
import yaml
from diffusers import AutoencoderKL, StableDiffusionPipeline

from sdo_ray.settings import Problem, SettingsError
from sdo_ray.zoo.autoencoder import encode, train_autoencoder
from sdo_ray.zoo.captioned import Captioned, read_captioned
from sdo_ray.zoo.denoiser import Latents, make_scheduler, start_unet, train_denoiser
from sdo_ray.zoo.fitting import Report
from sdo_ray.zoo.settings import PretrainSettings
from sdo_ray.zoo.text import load_text


def pretrain(settings: PretrainSettings, report: Report) -> Path:
    """Runs or continues the run in `settings.output` and returns the directory of the finished pipeline.

    Raises:
        SettingsError: the directory holds a run with other settings.
        ValueError: the parts given do not fit together, or the data is not what the settings say.
        FileNotFoundError: the data is not where the settings say.
    """
    output = Path(settings.output)
    claim(output, settings)
    data = read_captioned(settings.data)
    report(f"{len(data.images)} images of {settings.data.size} x {settings.data.size} from {settings.data.path}")

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
    path, now = output / "settings.yaml", settings.to_dict()
    if not path.exists():
        output.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(yaml.safe_dump(now, sort_keys=False))
        os.replace(partial, path)
        return
    before = yaml.safe_load(path.read_text())
    if changed := [f"{key}: was {before.get(key)}, is {now[key]}" for key in now if before.get(key) != now[key]]:
        raise SettingsError(
            Problem(
                "output",
                f"{output} holds a run with other settings. Changed: {'; '.join(changed)}",
                fix=f"continue it with those in {path}, or name another directory",
            )
        )


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
    """Encodes every image, and its mirror image with `flip`, and every different caption once."""
    views = [data.images, data.images.flip(-1)] if flip else [data.images]
    device = str(pipeline.device)
    z = torch.stack([encode(pipeline.vae, view, device) for view in views]) * pipeline.vae.config.scaling_factor

    # A dictionary keeps the order of first appearance; the empty caption comes first.
    numbers = {caption: i for i, caption in enumerate(dict.fromkeys(["", *chain.from_iterable(data.captions)]))}
    captions = list(numbers)
    texts = [
        pipeline.encode_prompt(captions[first : first + 256], device, 1, do_classifier_free_guidance=False)[0].cpu()
        for first in range(0, len(captions), 256)
    ]
    choices = tuple(tuple(numbers[caption] for caption in several) for several in data.captions)
    return Latents(z, torch.cat(texts), choices)
