"""What a gradient costs on top of the images.

    python benchmarks/overhead.py [--steps 20] [--batch 8] [--rounds 9] [--guidance 1.0]

On the embedded model with a LoRA adapter, everything in one process, the variants taking turns in every round, in a
drawn order, so that whatever else the machine does hits all of them; medians of the rounds' ratios to the plain call of
the same round.

    plain      pipeline(...), images decoded
    empty      the same through `differentiable_sample` with a plan that keeps nothing: the cost of the hooks
    sdo        one update with K = 1: sampling, decoding, and the backward pass from the final latents (the reward's and
               the decoder's backward apart: every method pays those); the target is 1.35 at N = 20
    sdo image  the same with the backward pass starting at the images, through the decoder
    draft 2    the last two steps coupled
    full       every step kept, for comparison

and the bytes that autograd saves for the backward pass from the final latents, for several N.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from peft import LoraConfig

from sdo_ray import zoo
from sdo_ray.backprop import BackpropPlan, differentiable_sample, make_plan
from sdo_ray.backprop.saved import saved_activations

TARGET = 1.35


def load() -> Any:
    """The embedded model with a rank-4 adapter, the only part that is trained."""
    pipe = zoo.load("emoji")
    pipe.set_progress_bar_config(disable=True)
    for module in (pipe.unet, pipe.vae, pipe.text_encoder):
        module.requires_grad_(False)
    pipe.unet.add_adapter(LoraConfig(r=4, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
    return pipe


def update(pipe: Any, plan: BackpropPlan, call: dict[str, Any], seed: int) -> None:
    """Sample, decode, and take a gradient at the final latents back to the adapter."""
    z_N = differentiable_sample(pipe, plan, output_type="latent", generator=_seeded(seed), **call)
    with torch.no_grad():
        pipe.image_processor.postprocess(pipe.vae.decode(z_N / pipe.vae.config.scaling_factor).sample, "pt")
    z_N.backward(torch.ones_like(z_N))


def image_update(pipe: Any, plan: BackpropPlan, call: dict[str, Any], seed: int) -> None:
    """The same, with the gradient given at the images."""
    images = differentiable_sample(pipe, plan, generator=_seeded(seed), **call)
    images.backward(torch.ones_like(images))


def saved_bytes(pipe: Any, plan: BackpropPlan, call: dict[str, Any]) -> int:
    """Bytes of the storages saved for the backward pass from the final latents, the model's weights apart."""
    with saved_activations(pipe.unet) as saved:
        arguments = call | {"num_inference_steps": plan.num_steps}
        differentiable_sample(pipe, plan, output_type="latent", generator=_seeded(0), **arguments)
    return saved.bytes


def times(variants: dict[str, Callable[[int], object]], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each variant in each round (the machine may be shared); one round before them is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    shuffle = random.Random(0).shuffle
    for i in range(rounds + 1):
        order = list(variants.items())
        shuffle(order)
        for name, run in order:
            began = time.process_time()
            run(i)
            if i:
                seconds[name].append(time.process_time() - began)
    return seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20, help="N")
    parser.add_argument("--batch", type=int, default=8, help="images per update")
    parser.add_argument("--rounds", type=int, default=9, help="rounds, each with every variant once")
    parser.add_argument("--guidance", type=float, default=1.0, help="guidance scale; above 1 the denoiser works twice")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    pipe, N = load(), arguments.steps
    call = {
        "prompt": ["a red heart"] * arguments.batch,
        "guidance_scale": arguments.guidance,
        "num_inference_steps": N,
    }

    variants: dict[str, Callable[[int], object]] = {
        "plain": lambda i: pipe(output_type="pt", generator=_seeded(i), **call),
        "empty": lambda i: differentiable_sample(pipe, BackpropPlan("empty", N), generator=_seeded(i), **call),
        "sdo": lambda i: update(pipe, make_plan("sdo", N, generator=_seeded(i)), call, i),
        "sdo image": lambda i: image_update(pipe, make_plan("sdo", N, generator=_seeded(i)), call, i),
        "draft 2": lambda i: update(pipe, make_plan("draft", N, K=2), call, i),
        "full": lambda i: update(pipe, make_plan("full", N), call, i),
    }
    seconds = times(variants, arguments.rounds)
    print(f"N = {N}, batch {arguments.batch}, guidance {arguments.guidance}, {arguments.rounds} rounds")
    print(f"{'variant':<10} {'CPU s':>9} {'/ plain':>8}   (quartiles of the ratio)")
    for name, measured in seconds.items():
        ratios = [s / plain for s, plain in zip(measured, seconds["plain"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"{name:<10} {statistics.median(measured):9.3f} {middle:8.3f}   ({low:.3f} .. {high:.3f})")
    print(f"target for sdo at N = 20: at most {TARGET}; floor for the denoiser alone: (N + 2) / N = {(N + 2) / N:.3f}")

    print(f"\n{'N':>4} {'sdo, first step':>17} {'sdo, last step':>16} {'full':>10}   MB saved for backward")
    for n in (5, 10, 20, 40):
        first = saved_bytes(pipe, make_plan("sdo", n, draw="fixed", at=[0]), call)
        last = saved_bytes(pipe, make_plan("sdo", n, draw="fixed", at=[n - 1]), call)
        full = f"{saved_bytes(pipe, make_plan('full', n), call) / 1e6:10.1f}" if n <= 20 else f"{'-':>10}"
        print(f"{n:>4} {first / 1e6:17.3f} {last / 1e6:16.3f} {full}")


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


if __name__ == "__main__":
    main()
