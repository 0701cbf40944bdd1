"""What diffusers' caches, and ours, make of an update of a transformer of 12 layers: time, error, exactness.

    python benchmarks/transformer_caches.py [--steps 20] [--batch 4] [--size 32] [--rounds 3] [--only NAME ...]

FLUX's classes with 4 double and 8 single blocks of width 256, random weights, a LoRA on attention, (size / 2)^2 tokens.
Everything in one process, in a drawn order in every round; CPU time of sampling and of the backward pass from the final
latents, divided by that of the plain call of the round. Random weights say little about errors of a trained model;
what they show is time, and that the kept step is exact: the last column is the relative difference between its gradient
and that of the bare denoiser at the same inputs.
"""

from __future__ import annotations

import argparse
import copy
import random
import statistics
import time
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

from sdo_ray.backprop import KeptCall, differentiable_sample, make_plan, surrogate
from sdo_ray.models.parameters import trained_parameters
from sdo_ray.models.trained.lora import LoraSettings, attach
from sdo_ray.rollout.preparation import runner_of
from sdo_ray.rollout.settings import SamplingSettings

WAYS: dict[str, dict[str, Any]] = {
    "exact": {},
    "taylorseer": {"cache": {"name": "taylorseer", "options": {"cache_interval": 3, "disable_cache_before_step": 2}}},
    "taylorseer, lite": {
        "cache": {
            "name": "taylorseer",
            "options": {"cache_interval": 3, "disable_cache_before_step": 2, "use_lite_mode": True},
        }
    },
    "pab": {
        "cache": {
            "name": "pab",
            "options": {
                "spatial_attention_block_skip_range": 2,
                "spatial_attention_timestep_skip_range": [-1, 1001],
                "spatial_attention_block_identifiers": ["transformer_blocks", "single_transformer_blocks"],
            },
        }
    },
    "first-block, threshold 0.3": {"cache": {"name": "first-block", "options": {"threshold": 0.3}}},
    "mag-cache, two of three": {
        "cache": {"name": "mag-cache", "options": {"mag_ratios": [1.0] * 20, "threshold": 10.0, "max_skip_steps": 2}}
    },
    "faster-cache, attention": {
        "cache": {
            "name": "faster-cache",
            "options": {
                "spatial_attention_timestep_skip_range": [-1, 1001],
                "spatial_attention_block_identifiers": ["transformer_blocks", "single_transformer_blocks"],
                "tensor_format": "BCHW",
                "is_guidance_distilled": True,
            },
        }
    },
    "modules: attention, order 1": {
        "cache": {"name": "modules", "modules": [r"(single_)?transformer_blocks\.\d+\.attn"], "order": 1}
    },
    "taylor, every 3": {"cache": "taylor"},
    "taylor, every 3, bfloat16 copy": {"cache": "taylor", "fast_copy": "bfloat16"},
}


def pipeline() -> Any:
    """Of random weights, with a LoRA whose factors both start away from zero."""
    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=4,
        num_single_layers=8,
        attention_head_dim=64,
        num_attention_heads=4,
        joint_attention_dim=128,
        pooled_projection_dim=64,
        axes_dims_rope=(16, 24, 24),
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        latent_channels=4,
        norm_num_groups=4,
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
    )
    parts = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    made = FluxPipeline(FlowMatchEulerDiscreteScheduler(), vae, transformer=transformer, **parts)
    made.set_progress_bar_config(disable=True)
    for part in (transformer, vae):
        part.requires_grad_(False).eval()
    trained = attach({"transformer": transformer}, LoraSettings(rank=8, targets=["to_q", "to_k", "to_v"]))
    for parameter in trained_parameters(trained).values():
        torch.nn.init.normal_(parameter, std=0.02)
    return made


class Way:
    """One way, in a pipeline of its own: diffusers' caches stay on.

    Args:
        how: of `WAYS`.
        steps: N.
        call: the pipeline call's arguments.
    """

    def __init__(self, how: dict[str, Any], steps: int, call: dict[str, Any]) -> None:
        self.pipe, self.steps, self.call = pipeline(), steps, call
        self.bare = copy.deepcopy(self.pipe.transformer)
        self.runner = runner_of(self.pipe, SamplingSettings.model_validate({"num_inference_steps": steps, **how}))
        self.parameters = [p for p in self.pipe.transformer.parameters() if p.requires_grad]

    def plain(self, seed: int) -> float:
        """CPU seconds of a call."""
        began = time.process_time()
        self.pipe(**self.call, generator=torch.Generator().manual_seed(seed))
        return time.process_time() - began

    def update(self, seed: int, k: int, elsewhere: list[KeptCall] | None = None) -> tuple[float, Any, Any]:
        """CPU seconds, final latents and gradient of one update with step k kept; none with `elsewhere`."""
        plan, noise = make_plan("sdo", self.steps, draw="fixed", at=[k]), torch.Generator().manual_seed(seed)
        began = time.process_time()
        z = differentiable_sample(
            self.pipe, plan, runner=self.runner, elsewhere=elsewhere, generator=noise, **self.call
        )
        direction = torch.randn(z.shape, generator=torch.Generator().manual_seed(seed))
        z.backward(direction)
        seconds = time.process_time() - began
        if elsewhere is not None:
            return seconds, z, None
        g = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in self.parameters])
        for p in self.parameters:
            p.grad = None
        return seconds, z.detach(), g

    def inexactness(self, seed: int, k: int) -> float:
        """Of the kept step's gradient: its relative difference from the bare denoiser's at the same inputs."""
        _, _, g = self.update(seed, k)
        calls: list[KeptCall] = []
        self.update(seed, k, calls)
        direct = surrogate(self.bare, calls[0].args, calls[0].kwargs, calls[0].gradients())
        own = torch.autograd.grad(direct, [p for p in self.bare.parameters() if p.requires_grad], allow_unused=True)
        expected = torch.cat(
            [
                torch.zeros_like(p).flatten() if h is None else h.flatten()
                for p, h in zip(self.parameters, own, strict=True)
            ]
        )
        return float((g - expected).norm() / expected.norm())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20, help="N")
    parser.add_argument("--batch", type=int, default=4, help="images per update")
    parser.add_argument("--size", type=int, default=32, help="pixels of the latents")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, each with every way once")
    parser.add_argument("--only", nargs="*", choices=WAYS, metavar="NAME", help="these ways alone, beside `exact`")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    noise = torch.Generator().manual_seed(0)
    call = {
        "prompt_embeds": torch.randn(arguments.batch, 32, 128, generator=noise),
        "pooled_prompt_embeds": torch.randn(arguments.batch, 64, generator=noise),
        "num_inference_steps": arguments.steps,
        "height": 2 * arguments.size,
        "width": 2 * arguments.size,
        "output_type": "latent",
    }
    asked = {name: how for name, how in WAYS.items() if not arguments.only or name in (*arguments.only, "exact")}
    ways = {name: Way(how, arguments.steps, call) for name, how in asked.items()}
    rows: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ways}
    draw = random.Random(0)
    ways["exact"].plain(0)
    for seed in range(arguments.rounds):
        k = int((seed + draw.random()) / arguments.rounds * arguments.steps)
        plain, made = ways["exact"].plain(seed), {}
        for name in draw.sample(sorted(ways), len(ways)):
            made[name] = ways[name].update(seed, k)
        _, z, g = made["exact"]
        for name, (seconds, latents, gradient) in made.items():
            cosine = float(torch.nn.functional.cosine_similarity(gradient, g, dim=0))
            rows[name].append((seconds / plain, float((latents - z).norm() / z.norm()), cosine))
        print(f"round {seed + 1} of {arguments.rounds}, k = {k}", flush=True)
    tokens = (arguments.size // 2) ** 2
    print(f"\nN = {arguments.steps}, batch {arguments.batch}, {tokens} tokens, {arguments.rounds} rounds\n")
    print("| way | update / plain call | latents | cosine | kept step off by |\n|---|---|---|---|---|")
    for name, row in rows.items():
        ratio, latents, cosine = (statistics.median(column) for column in zip(*row, strict=True))
        off = ways[name].inexactness(0, arguments.steps // 2)
        print(f"| {name} | {ratio:.2f} | {latents:.3f} | {cosine:.2f} | {off:.0e} |", flush=True)


if __name__ == "__main__":
    main()
