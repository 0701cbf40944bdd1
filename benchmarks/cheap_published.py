"""What an update with cheap steps computes at the published sizes of other models, over what the plain call does.

    python -m benchmarks.cheap_published [--models sd15 sdxl sd35-medium] [--steps 20] [--seconds] [--ways NAME ...]

Operations of matrix products and convolutions, counted on torch's meta device: no weights and no arithmetic, minutes a
model. An update is N denoiser calls with guidance, one of them kept with its backward pass to the LoRA, and the decoder
there and back; the plain call is N denoiser calls and the decoder. The rewards are left out. Operations are not time:
what a held step spends on memory and on starting kernels is not in them.

With `--seconds` the same is really computed, in bfloat16 with random weights on this machine's CPU, and CPU time is
divided; Stable Diffusion 1.5 at 512 pixels takes about ten minutes a way on one core.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from benchmarks.cheap_updates import Operations
from benchmarks.models import MODELS, load_model
from sdo_ray.backprop import StepRunner
from sdo_ray.backprop.denoisers import denoisers_of
from sdo_ray.backprop.steps import ExactRunner
from sdo_ray.cheap_steps.choose import choose_runner
from sdo_ray.cheap_steps.settings import CacheSettings
from sdo_ray.settings import SettingsError

WAYS: dict[str, dict[str, Any] | None] = {
    "exact": None,
    "taylor, every 2": {"name": "taylor", "every": 2},
    "taylor, every 3": {"name": "taylor", "every": 3},
    "taylor, every 4": {"name": "taylor", "every": 4},
    "deepcache, every 3": {"name": "deepcache", "every": 3},
    "deepcache, every 5": {"name": "deepcache", "every": 5},
    "faster-diffusion, every 2": {"name": "faster-diffusion", "every": 2},
    "faster-diffusion, every 3": {"name": "faster-diffusion", "every": 3},
}


def counted(work: Callable[[], object]) -> float:
    """The operations of a piece of work."""
    with Operations() as counter:
        work()
    return counter.total


def timed(work: Callable[[], object]) -> float:
    """The CPU seconds of a piece of work."""
    began = time.process_time()
    work()
    return time.process_time() - began


class Published:
    """A model at its published size.

    Args:
        model: one of `MODELS` with random weights.
        device: "meta" for one without weights.
    """

    def __init__(self, model: str, device: str = "meta") -> None:
        made = load_model(model, rank=8, dtype="bfloat16", device=device)
        self.pipe = made.pipeline
        [self.name] = denoisers_of(self.pipe)
        self.denoiser: Any = self.pipe.components[self.name]
        self.parameters = [p for p in self.denoiser.parameters() if p.requires_grad]
        given, config = made.call(2), self.denoiser.config
        size = config.sample_size
        self.latents = torch.randn(1, config.in_channels, size, size, dtype=torch.bfloat16, device=device)
        pooled = given.get("pooled_prompt_embeds")
        self.kwargs: dict[str, Any] = {
            "timestep": torch.zeros(2, device=device),
            "encoder_hidden_states": given["prompt_embeds"],
            "return_dict": False,
        }
        rows = torch.cat([self.latents] * 2)
        if self.name == "transformer":
            self.kwargs |= {"hidden_states": rows, "pooled_projections": pooled}
        else:
            sizes = torch.zeros(2, 6, device=device)
            self.kwargs |= {"sample": rows, "added_cond_kwargs": {"text_embeds": pooled, "time_ids": sizes}}

    def plain(self, steps: int) -> None:
        """The plain call."""
        with torch.no_grad():
            for _ in range(steps):
                self.denoiser(**self.kwargs)
            self.pipe.vae.decode(self.latents)

    def runner(self, cache: CacheSettings | None, steps: int) -> StepRunner:
        """What runs an update's steps without a graph.

        Raises:
            SettingsError: the model cannot have the cache.
        """
        return choose_runner(self.pipe, cache, None, steps) or ExactRunner()

    def update(self, steps: int, runner: StepRunner) -> None:
        """An update whose middle step is kept."""
        z, kept = self.latents.clone().requires_grad_(), steps // 2
        with runner.sampling(steps, {self.name: self.denoiser}):
            for step in range(steps):
                if step == kept:
                    [output] = runner.exact(step, self.name, self.denoiser, (), self.kwargs)
                else:
                    with torch.no_grad():
                        runner(step, self.name, self.denoiser, (), self.kwargs)
            self.pipe.vae.decode(z).sample.sum().backward()
            torch.autograd.grad(output.sum(), self.parameters)


def main() -> None:
    """Count or time, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    random = [name for name in MODELS if name != "emoji"]
    parser.add_argument("--models", nargs="+", choices=random, default=random, help="(default: all)")
    parser.add_argument("--steps", nargs="+", type=int, default=[20], help="N (default: %(default)s)")
    parser.add_argument("--seconds", action="store_true", help="compute and time it, on the CPU")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), metavar="NAME", help="(default: all)")
    given = parser.parse_args()
    measure, device = (timed, "cpu") if given.seconds else (counted, "meta")
    models = {name: Published(name, device) for name in given.models}
    columns = [(name, steps) for name in models for steps in given.steps]
    plain = {(name, steps): measure(partial(models[name].plain, steps)) for name, steps in columns}
    print(f"| steps without a graph | {' | '.join(f'{name}, N = {steps}' for name, steps in columns)} |")
    print("|---" * (len(columns) + 1) + "|", flush=True)
    for way in given.ways:
        how, cells = WAYS[way], []
        cache = None if how is None else CacheSettings.model_validate(how)
        for name, steps in columns:
            try:
                runner = models[name].runner(cache, steps)
            except SettingsError:
                cells.append("")
            else:
                ratio = measure(partial(models[name].update, steps, runner)) / plain[name, steps]
                cells.append(f"{ratio:.2f}")
        print(f"| {way} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
