"""First stage of pretraining: the autoencoder between images and latents.

Notation:
    x       images [B, 3, H, W] in [-1, 1]
    q(z|x)  diagonal normal that the encoder gives; z drawn from it [B, C, H/f, W/f]
    x'      the decoder's image of z
    loss    |x' - x| + |d(x' - x)| + kl * KL(q || N(0, I)), means over elements; d, the difference of neighbours,
            keeps edges where images are flat. Without an adversary or a perceptual network: nothing but the data.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from sdo_ray.zoo.captioned import Captioned
from sdo_ray.zoo.contact_sheet import write_sheet
from sdo_ray.zoo.fitting import Report, batch_rows, fit, generator
from sdo_ray.zoo.settings import AutoencoderSettings


def train_autoencoder(
    settings: AutoencoderSettings, data: Captioned, flip: bool, seed: int, directory: Path, device: str, report: Report
) -> AutoencoderKL:
    """Fits the autoencoder and returns its average, in eval mode, with `scaling_factor` = 1 / std of the latents.

    With `updates: 0` and `init_from` the autoencoder, scaling factor included, is handed on as it is.
    """
    model = _start(settings, data.images.shape[-1], seed).to(device)
    if settings.updates == 0 and settings.init_from is not None:
        return model.eval().requires_grad_(False)

    def loss(update: int) -> Tensor:
        draw = generator(seed, "autoencoder", update)
        x = to_model(data.images[batch_rows(seed, update, len(data.images), settings.batch_size)])
        if flip:
            mirrored = torch.rand(len(x), generator=draw) < 0.5
            x = torch.where(mirrored[:, None, None, None], x.flip(-1), x)
        x = x.to(device)
        with torch.autocast(x.device.type, torch.bfloat16):
            q = model.encode(x).latent_dist
            noise = torch.randn(q.mean.shape, generator=draw).to(device)
            decoded = model.decode(q.mean + q.std * noise).sample
        error = decoded.float() - x
        edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        kl = 0.5 * (q.mean.float().pow(2) + q.var.float() - 1 - q.logvar.float()).mean()
        return error.abs().mean() + edges + settings.kl * kl

    def image(done: int, average: AutoencoderKL) -> None:
        x = to_model(data.images[:16]).to(device)
        with torch.no_grad():
            decoded = average.decode(average.encode(x).latent_dist.mean).sample
        write_sheet(to_unit(torch.cat([x, decoded])), directory / f"sheet-{done:08d}.png", columns=len(x))

    model = fit(model, loss, settings, directory, image, report)
    spread = encode(model, data.images, device).std().item()
    model.register_to_config(scaling_factor=1.0 / spread)
    return model


@torch.no_grad()
def encode(vae: AutoencoderKL, images: Tensor, device: str) -> Tensor:
    """Means of q(z|x), unscaled, float32 [n, C, h, w] on the CPU, of uint8 images [n, 3, H, W]."""
    return torch.cat([vae.encode(to_model(part).to(device)).latent_dist.mean.cpu() for part in images.split(64)])


def to_model(images: Tensor) -> Tensor:
    """Uint8 images in [0, 255] -> float32 in [-1, 1], the autoencoder's range."""
    return images.float() / 127.5 - 1


def to_unit(images: Tensor) -> Tensor:
    """Images in the autoencoder's range -> [0, 1], cut to it."""
    return (images / 2 + 0.5).clamp(0, 1)


def _start(settings: AutoencoderSettings, size: int, seed: int) -> AutoencoderKL:
    if settings.init_from is not None:
        return AutoencoderKL.from_pretrained(
            settings.init_from, dtype=torch.float32, use_safetensors=True, local_files_only=True
        )
    levels = len(settings.channels)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return AutoencoderKL(
            block_out_channels=settings.channels,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            latent_channels=settings.latent_channels,
            layers_per_block=settings.layers,
            norm_num_groups=8,
            sample_size=size,
            # Attention at the lowest resolution costs more than it gives at images of this size.
            mid_block_add_attention=False,
        )
