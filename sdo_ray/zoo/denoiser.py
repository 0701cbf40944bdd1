"""Second stage of pretraining: the UNet that predicts the noise in latents from their caption.

Notation:
    z       scaled latents of an image [B, C, h, w];  c  hidden states of its caption [B, T, D]
    t       timestep, uniform over the schedule;  abar_t  its cumulative alpha;  snr_t = abar_t / (1 - abar_t)
    z_t     sqrt(abar_t) z + sqrt(1 - abar_t) eps,  eps ~ N(0, I)                Ho et al. 2020, arXiv 2006.11239, eq. 4
    loss    mean of w_t |UNet(z_t, t, c) - eps|^2                                eq. 14 there, weighted with
            w_t = min(snr_t, gamma) / snr_t                                      Hang et al. 2023, arXiv 2303.09556
    empty   a share of the captions is empty, for guidance without a classifier  Ho & Salimans 2022, arXiv 2207.12598
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from sdo_ray.zoo.contact_sheet import write_sheet
from sdo_ray.zoo.fitting import Report, batch_rows, fit, generator
from sdo_ray.zoo.settings import DenoiserSettings, SheetSettings


def make_scheduler() -> DDIMScheduler:
    """DDIM on Stable Diffusion's noise schedule, for training and sampling."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


@dataclass(frozen=True)
class Latents:
    """What the UNet learns from; computed once, on the CPU."""

    z: Tensor
    """Scaled latents, float32 [F, n, C, h, w]: the images as they are and, where F is 2, mirrored."""
    texts: Tensor
    """Hidden states of all different captions, float32 [m, T, D]; the first is of the empty caption."""
    choices: tuple[tuple[int, ...], ...]
    """Rows of `texts` that describe each of the n images."""


def denoising_loss(
    unet: nn.Module, z: Tensor, noise: Tensor, t: Tensor, c: Tensor, abar: Tensor, gamma: float
) -> Tensor:
    """The loss above, a float32 scalar, in bfloat16 autocast.

    Args:
        unet: UNet2DConditionModel.
        z: scaled latents [B, C, h, w].
        noise: eps, shaped as z.
        t: timesteps, int64 [B], in [0, len(abar)).
        c: hidden states of the captions [B, T, D].
        abar: cumulative alphas of the schedule [1000].
        gamma: bound of the signal-to-noise ratio, > 0.
    """
    a = abar[t][:, None, None, None]
    z_t = a.sqrt() * z + (1 - a).sqrt() * noise
    # The plain kernel: the fused one is slower on CPUs at these sizes, where its backward takes half of an update.
    with torch.autocast(z.device.type, torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
        predicted = unet(z_t, t, c).sample
    snr = abar[t] / (1 - abar[t])
    weight = snr.clamp(max=gamma) / snr
    return (weight * (predicted.float() - noise).pow(2).mean(dim=(1, 2, 3))).mean()


@torch.no_grad()
def fixed_noise_loss(unet: nn.Module, data: Latents, abar: Tensor, gamma: float) -> float:
    """The loss above on up to 512 images at the same timesteps and noise every time, so that models can be compared.

    The images are evenly spaced rows of `data`, as they are, with the first of their captions.
    """
    rows = torch.arange(0, data.z.shape[1], max(1, data.z.shape[1] // 512))[:512]
    draw = generator(0, "fixed noise", 0)
    t = torch.randint(len(abar), rows.shape, generator=draw)
    noise = torch.randn(data.z[0, rows].shape, generator=draw)
    texts = torch.tensor([data.choices[row][0] for row in rows.tolist()])
    total = 0.0
    for part in torch.arange(len(rows)).split(64):
        inputs = (data.z[0, rows[part]], noise[part], t[part], data.texts[texts[part]])
        z, eps, steps, c = (x.to(abar.device) for x in inputs)
        total += len(part) * denoising_loss(unet, z, eps, steps, c, abar, gamma).item()
    return total / len(rows)


def train_denoiser(
    settings: DenoiserSettings,
    data: Latents,
    pipeline: StableDiffusionPipeline,
    sheet: SheetSettings,
    seed: int,
    directory: Path,
    report: Report,
) -> None:
    """Fits the UNet of `pipeline`, which holds its average when this returns."""
    device = pipeline.device
    model = pipeline.unet
    abar = pipeline.scheduler.alphas_cumprod.to(device)
    flips, rows = data.z.shape[:2]

    def loss(update: int) -> Tensor:
        draw = generator(seed, "denoiser", update)
        batch = batch_rows(seed, update, rows, settings.batch_size)
        z = data.z[torch.randint(flips, batch.shape, generator=draw), batch]
        picks = torch.rand(batch.shape, generator=draw).tolist()
        choices = [data.choices[row] for row in batch.tolist()]
        texts = torch.tensor([choice[int(pick * len(choice))] for choice, pick in zip(choices, picks, strict=True)])
        # Row 0 is the empty caption.
        texts[torch.rand(batch.shape, generator=draw) < settings.empty_captions] = 0
        t = torch.randint(len(abar), batch.shape, generator=draw)
        noise = torch.randn(z.shape, generator=draw)
        z, noise, t, c = (x.to(device) for x in (z, noise, t, data.texts[texts]))
        return denoising_loss(model, z, noise, t, c, abar, settings.min_snr)

    def image(done: int, average: nn.Module) -> None:
        pipeline.unet = average
        report(
            f"averaged weights after update {done}: loss {fixed_noise_loss(average, data, abar, settings.min_snr):.5f}"
        )
        write_sheet(sample(pipeline, sheet), directory / f"sheet-{done:08d}.png", columns=len(sheet.prompts))

    pipeline.unet = fit(model, loss, settings, directory, image, report)


def sample(pipeline: StableDiffusionPipeline, sheet: SheetSettings) -> Tensor:
    """Images [seeds * prompts, 3, H, W] in [0, 1]; one row of noise per seed, shared by its prompts."""
    height, width = (pipeline.unet.config.sample_size,) * 2
    shape = (1, pipeline.unet.config.in_channels, height, width)
    rows = []
    for seed in range(sheet.seeds):
        noise = torch.randn(shape, generator=generator(seed, "sheet", 0)).repeat(len(sheet.prompts), 1, 1, 1)
        images = pipeline(
            sheet.prompts,
            latents=noise.to(pipeline.device),
            num_inference_steps=sheet.steps,
            guidance_scale=sheet.guidance,
            output_type="pt",
        ).images
        rows.append(images.cpu())
    return torch.cat(rows)


def start_unet(
    settings: DenoiserSettings, latent_channels: int, size: int, width: int, seed: int
) -> UNet2DConditionModel:
    """A UNet for latents [latent_channels, size, size] and captions of `width` features, from `init_from` or random.

    Raises:
        ValueError: the UNet at `init_from` is made for other latents or captions.
    """
    if settings.init_from is not None:
        unet = UNet2DConditionModel.from_pretrained(
            settings.init_from, dtype=torch.float32, use_safetensors=True, local_files_only=True
        )
        got = (unet.config.in_channels, unet.config.sample_size, unet.config.cross_attention_dim)
        if got != (latent_channels, size, width):
            raise ValueError(
                f"unet.init_from: {settings.init_from} has (latent channels, latent size, caption features) = {got};"
                f" the data and the autoencoder need {(latent_channels, size, width)}"
            )
        return unet
    upper = len(settings.channels) - 1
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return UNet2DConditionModel(
            sample_size=size,
            in_channels=latent_channels,
            out_channels=latent_channels,
            block_out_channels=settings.channels,
            down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * upper,
            up_block_types=("CrossAttnUpBlock2D",) * upper + ("UpBlock2D",),
            layers_per_block=settings.layers,
            cross_attention_dim=width,
            # diffusers' name for the number of heads.
            attention_head_dim=settings.heads,
            norm_num_groups=16,
        )
