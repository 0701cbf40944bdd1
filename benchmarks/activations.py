"""What the backward pass of one image holds, counted on the meta device: true layouts, no weights, no GPU, seconds.

    python -m benchmarks.activations [--models sd15 sdxl sd35-medium] [--dtype bfloat16] [--decoder float32]

For the kept step with guidance (both branches) and for the decoder, each with and without block checkpointing: the
bytes that autograd saves in the forward pass, and the most that is alive at once from its begin to the end of the
backward pass, weights apart, by every tensor that an operation makes. Attention saves queries, keys, values, its
output and the sums, as fused kernels do. From these, for one image:

    retain        both graphs are held together while the reward is asked: the sum of what is saved
    recompute     one after the other: the larger

`benchmarks.memory` measures the same on a GPU.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.models import MODELS, load_model
from sdo_ray.models.denoisers import find_denoisers
from sdo_ray.sizing.takes import takes

GIB = 2**30


def parts_of(name: str, dtype: str, decoder: str) -> dict[str, tuple[torch.nn.Module, Callable[[], torch.Tensor]]]:
    """The kept step's and the decoder's module, and how each is called for one image."""
    denoiser: Any
    with torch.device("meta"):
        pipeline = load_model(name, rank=8, dtype=dtype, device="meta").pipeline
        [denoiser] = find_denoisers(pipeline).values()
        vae = pipeline.vae.to(getattr(torch, decoder))
    kind, size = getattr(torch, dtype), denoiser.config.sample_size
    channels = denoiser.config.in_channels

    def tensor(*shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=kind, device="meta")

    texts: dict[str, dict[str, Any]] = {
        "sd15": {"encoder_hidden_states": tensor(2, 77, 768)},
        "sdxl": {
            "encoder_hidden_states": tensor(2, 77, 2048),
            "added_cond_kwargs": {"text_embeds": tensor(2, 1280), "time_ids": tensor(2, 6)},
        },
        "sd35-medium": {"encoder_hidden_states": tensor(2, 333, 4096), "pooled_projections": tensor(2, 2048)},
    }

    def step() -> torch.Tensor:
        timesteps = torch.empty(2, device="meta")
        output: torch.Tensor = denoiser(tensor(2, channels, size, size), timestep=timesteps, **texts[name]).sample
        return output

    def decode() -> torch.Tensor:
        z = torch.empty(1, channels, size, size, dtype=vae.dtype, device="meta", requires_grad=True)
        output: torch.Tensor = vae.decode(z).sample
        return output

    return {"kept step": (denoiser, step), "decoder": (vae, decode)}


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    published = [name for name in MODELS if name != "emoji"]
    parser.add_argument("--models", nargs="+", choices=published, default=published)
    parser.add_argument("--dtype", default="bfloat16", help="of the denoiser")
    parser.add_argument("--decoder", default="bfloat16", help="type of the decoder")
    given = parser.parse_args()
    print(f"one image with guidance, denoiser {given.dtype}, decoder {given.decoder}; GiB saved (alive at once)\n")
    print("| model | blocks | kept step | decoder | retain | recompute |\n|---|---|---|---|---|---|")
    for name in given.models:
        for blocks in (False, True):
            found = {}
            for what, (part, call) in parts_of(name, given.dtype, given.decoder).items():
                if blocks:
                    part.enable_gradient_checkpointing()  # type: ignore[operator]
                found[what] = takes(part, call)
            cells = [f"{part.saved / GIB:.2f} ({part.held / GIB:.2f})" for part in found.values()]
            saved = [part.saved for part in found.values()]
            again = f"{max(saved) / GIB:.2f} ({max(part.held for part in found.values()) / GIB:.2f})"
            row = [name, "checkpointed" if blocks else "", *cells, f"{sum(saved) / GIB:.2f}", again]
            print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
