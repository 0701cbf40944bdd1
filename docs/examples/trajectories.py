"""A pipeline of one's own: paths in the plane, a denoiser of a few lines, and a reward for smooth ones.

python -c "from trajectories import trained; trained().save_pretrained('paths')"     trains it and saves it
"""

import torch
from diffusers import ConfigMixin, DDIMScheduler, DiffusionPipeline, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils.torch_utils import randn_tensor
from torch import nn

LENGTH = 32


class Denoiser(ModelMixin, ConfigMixin):
    """Noise of paths [B, 2, T] at times [B] or (); any model that diffusers can save will do."""

    @register_to_config
    def __init__(self, width: int = 48):
        super().__init__()
        self.into, self.time = nn.Conv1d(2, width, 5, padding=2), nn.Linear(2, width)
        self.middle = nn.ModuleList(nn.Conv1d(width, width, 5, padding=2 * d, dilation=d) for d in (1, 2, 4, 4))
        self.out = nn.Conv1d(width, 2, 5, padding=2)

    def forward(self, z, t):
        """One call of the pipeline's loop."""
        angle = torch.as_tensor(t, device=z.device).float().expand(len(z)) * (torch.pi / 2000)
        h = self.into(z) + self.time(torch.stack([angle.sin(), angle.cos()], -1).to(z.dtype))[:, :, None]
        for layer in self.middle:
            h = h + layer(nn.functional.silu(h))
        return self.out(nn.functional.silu(h))


class TrajectoryPipeline(DiffusionPipeline):
    """Draws paths [B, 2, T]. The prompts do not matter to it; it could look up goals or obstacles by them."""

    modality = "any"  # neither images, videos nor audio

    def __init__(self, unet: Denoiser, scheduler: DDIMScheduler):
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)

    @torch.no_grad()
    def __call__(self, prompt, num_inference_steps=20, guidance_scale=1.0, generator=None, output_type="pt"):
        """Paths, one a prompt."""
        shape = (len(prompt), 2, LENGTH)
        z = randn_tensor(shape, generator=generator, device=self.device, dtype=self.unet.dtype)
        self.scheduler.set_timesteps(num_inference_steps, device=self.device)
        for t in self.scheduler.timesteps:
            z = self.scheduler.step(self.unet(z, t), t, z).prev_sample
        return (z,)


class Smoothness:
    """Minus the mean square of a path's second differences."""

    differentiable = True
    modality = "any"

    def __call__(self, paths, prompts):
        """Scores of paths [B, 2, T]."""
        return -paths.diff(dim=-1).diff(dim=-1).square().mean((1, 2))


def shaky_paths(count, generator):
    """Straight ways from one point to another, with a shaking hand: what the model learns."""
    ends = torch.randn(count, 2, 2, generator=generator)
    along = torch.linspace(0, 1, LENGTH)
    shaking = 0.15 * torch.randn(count, 2, LENGTH, generator=generator)
    return ends[:, 0, :, None] * (1 - along) + ends[:, 1, :, None] * along + shaking


def trained(steps=2000, seed=0):
    """The pipeline, trained to predict noise."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    unet, scheduler = Denoiser(), DDIMScheduler(clip_sample=False)
    optimizer = torch.optim.Adam(unet.parameters(), lr=2e-3)
    for _ in range(steps):
        x, t = shaky_paths(64, generator), torch.randint(1000, (64,), generator=generator)
        noise = torch.randn(x.shape, generator=generator)
        loss = (unet(scheduler.add_noise(x, noise, t), t) - noise).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return TrajectoryPipeline(unet, scheduler)
