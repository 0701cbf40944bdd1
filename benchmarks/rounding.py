"""Weights of four bits by what layers are given: which of the ways of the papers bring the denoiser's output nearer.

    python -m benchmarks.rounding [--calibrate 8] [--prompts 6] [--only NAME ...]

On the embedded model with a random adapter of rank 8 merged. Layers' inputs are gathered along the sampler's own
trajectories of some prompts, at every fourth of 20 time steps and with both branches of guidance (the calibration set
of PTQ4DM, arXiv 2211.15736, and Q-Diffusion, arXiv 2302.04304). The error is that of the guided output at the latents
of exact steps of other prompts, relative, mean over prompts and over time steps; the output of the layers by themselves
beside it. Errors of final latents say less: two images in six change much with any rounding.

Notation
    W, x, C       a layer's weight as a matrix, what it is given, mean x x^T;  d_j = sqrt(C_jj)
    Q, L          `sdo_ray.cheap_steps.rounded`: rounding to four bits, a branch of low rank that is not rounded

Ways
    rounded       Q(W), of all layers of blocks; all others leave shortcuts and projections as they are
    kept          Q(W)
    branch        L + Q(W - L), L of rank 16 nearest to W: `quantize: int4, low_rank: 16`
    weighted      likewise, L such that (W - L) diag(d) is least
    smoothed      (L + Q(W S - L)) / S, s_j = d_j^a / max_i |w_ij|^(1-a) (SmoothQuant, SVDQuant), a in 0 .. 1, or S = 1,
                  whichever brings the layer's output nearest
    feedback      L + W', the columns of W' rounded one after the other, the error of each made up for by those that
                  follow, by C (GPTQ, arXiv 2210.17323)
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.cheap_updates import GUIDANCE, LAYERS, PROMPTS
from benchmarks.fewer_steps import FITTED_ON
from sdo_ray.cheap_steps.low_rank import low_rank
from sdo_ray.cheap_steps.rounded import GROUP, KEPT, round_weights
from sdo_ray.models.load import load_pipeline

RANK, EXPONENTS, STEPS, EVERY = 16, (None, 0.0, 0.25, 0.5, 0.75, 1.0), 20, 4
LARGEST = 7
Way = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""W [rows, columns] and C [columns, columns] -> the weight that stands for W."""


def rounded(w: torch.Tensor, c: torch.Tensor | None = None, rank: int = 0) -> torch.Tensor:
    """L + Q(W - L), as fast copies have it."""
    layer = nn.Linear(w.shape[1], w.shape[0], bias=False).requires_grad_(False)
    layer.weight.copy_(w)
    round_weights(nn.Sequential(layer), "int4", rank)
    return layer.weight.detach()


def weighted(w: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """See `weighted` above."""
    branch = weighted_branch(w, c, RANK)
    return branch + rounded(w - branch)


def weighted_branch(w: torch.Tensor, c: torch.Tensor, rank: int) -> torch.Tensor:
    """The matrix of a rank for which (W - L) diag(d) is least: the nearest to W diag(d), by Eckart and Young."""
    d = c.diagonal().clamp_min(1e-12).sqrt()
    up, down = low_rank(w * d, rank)
    return up @ down / d


def smoothed(w: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """See `smoothed` above."""
    made = [rounded(w * s, rank=RANK) / s for s in (smoothing(w, c, a) for a in EXPONENTS)]
    return min(made, key=lambda near: output_error(w, near, c))


def smoothing(w: torch.Tensor, c: torch.Tensor, a: float | None) -> torch.Tensor:
    """s, [columns]; of a = None, 1."""
    if a is None:
        return torch.ones(w.shape[1])
    d, largest = c.diagonal().clamp_min(1e-12).sqrt(), w.abs().amax(0).clamp_min(1e-6)
    return d**a / largest ** (1 - a)


def with_feedback(w: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """See `feedback` above."""
    up, down = low_rank(w, RANK)
    return up @ down + fed_back(w - up @ down, c)


def fed_back(w: torch.Tensor, c: torch.Tensor, damping: float = 0.01) -> torch.Tensor:
    """W rounded by columns; what of the output's error is left of each is made up for by the columns after it."""
    damped = c + damping * c.diagonal().mean() * torch.eye(len(c))
    factor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)), upper=True)
    rest, made, scale = w.clone(), torch.zeros_like(w), torch.ones(len(w))
    for j in range(w.shape[1]):
        if j % GROUP == 0:
            scale = (rest[:, j : j + GROUP].abs().amax(1) / LARGEST).clamp_min(1e-12)
        made[:, j] = (rest[:, j] / scale).round().clamp(-LARGEST, LARGEST) * scale
        error = (rest[:, j] - made[:, j]) / factor[j, j]
        rest[:, j:] -= error[:, None] * factor[j, j:]
    return made


def output_error(w: torch.Tensor, near: torch.Tensor, c: torch.Tensor) -> float:
    """sqrt(E |(W - W~) x|^2 / E |W x|^2)."""
    off = w - near
    return float((((off @ c) * off).sum() / ((w @ c) * w).sum()).sqrt())


WAYS: dict[str, Way] = {
    "rounded": rounded,
    "kept": rounded,
    "branch": partial(rounded, rank=RANK),
    "weighted": weighted,
    "smoothed": smoothed,
    "feedback": with_feedback,
}


class Rounding:
    """The model, what its layers are given, and exact outputs to compare with.

    Args:
        calibrate: prompts whose trajectories are gathered, up to 8.
        prompts: others, whose outputs are compared, up to 8.
    """

    def __init__(self, calibrate: int, prompts: int) -> None:
        self.pipe: Any = load_pipeline("zoo://emoji", "float32")
        layers = self.pipe.unet.named_modules()
        self.layers: dict[str, Any] = {
            name: layer
            for name, layer in layers
            if isinstance(layer, nn.Linear | nn.Conv2d) and any(part.isdigit() for part in name.split("."))
        }
        noise = torch.Generator().manual_seed(5)
        self.weights, self.inputs = dict[str, torch.Tensor](), dict[str, torch.Tensor]()
        for name, layer in self.layers.items():
            w = layer.weight.detach().flatten(1).clone()
            if name.endswith(tuple(LAYERS)):
                up, down = (torch.randn(shape, generator=noise) * 0.02 for shape in ((len(w), 8), (8, w.shape[1])))
                w += up @ down
            self.weights[name] = w
        self.set(self.weights)
        self._gather(calibrate)
        self._exact: list[tuple[Any, Any, torch.Tensor]] = []
        handle = self.pipe.unet.register_forward_hook(self._keep, with_kwargs=True)
        self._sample(PROMPTS[:prompts], 1)
        handle.remove()
        self._exact = self._exact[::EVERY]

    def set(self, weights: dict[str, torch.Tensor]) -> None:
        """Put weights into the model."""
        with torch.no_grad():
            for name, layer in self.layers.items():
                layer.weight.copy_(weights[name].view_as(layer.weight))

    @torch.no_grad()
    def errors(self, name: str) -> tuple[float, float]:
        """Of a way: of the guided output, and of layers' outputs, mean over layers."""
        made, layers = dict[str, torch.Tensor](), list[float]()
        for layer, w in self.weights.items():
            exact = name != "rounded" and KEPT.search(layer)
            made[layer] = w if exact else WAYS[name](w, self.inputs[layer])
            layers.append(output_error(w, made[layer], self.inputs[layer]))
        self.set(made)
        off = []
        for args, kwargs, output in self._exact:
            near, there = (_guided(x).flatten(1) for x in (self.pipe.unet(*args, **kwargs)[0], output))
            off.append(((near - there).norm(dim=1) / there.norm(dim=1)).mean())
        return float(torch.stack(off).mean()), sum(layers) / len(layers)

    def _sample(self, prompts: tuple[str, ...], seed: int) -> None:
        noise = [torch.Generator().manual_seed(100 * seed + i) for i in range(len(prompts))]
        call: dict[str, Any] = {"guidance_scale": GUIDANCE, "num_inference_steps": STEPS, "output_type": "latent"}
        self.pipe(list(prompts), generator=noise, **call)

    def _gather(self, prompts: int) -> None:
        counts = dict.fromkeys(self.layers, 0)
        calls = dict.fromkeys(self.layers, 0)
        for name, w in self.weights.items():
            self.inputs[name] = torch.zeros(w.shape[1], w.shape[1])

        def add(name: str, layer: Any, args: tuple[Any, ...]) -> None:
            calls[name] += 1
            if calls[name] % EVERY == 1:
                x = _columns(layer, args[0].detach())
                self.inputs[name].addmm_(x.T, x)
                counts[name] += len(x)

        handles = [layer.register_forward_pre_hook(partial(add, name)) for name, layer in self.layers.items()]
        self._sample(FITTED_ON[:prompts], 7)
        for handle in handles:
            handle.remove()
        for name, count in counts.items():
            self.inputs[name] /= count

    def _keep(self, _module: Any, args: Any, kwargs: Any, output: Any) -> None:
        self._exact.append((args, kwargs, output[0].detach().clone()))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rounding",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--calibrate", type=int, default=8, help="prompts to gather (default: %(default)s)")
    parser.add_argument("--prompts", type=int, default=6, help="prompts to compare (default: %(default)s)")
    parser.add_argument("--only", nargs="*", choices=WAYS, default=list(WAYS), metavar="NAME", help="these ways alone")
    given = parser.parse_args()
    torch.set_num_threads(1)
    bench = Rounding(given.calibrate, given.prompts)
    print("| way | output of the denoiser | outputs of layers |\n|---|---|---|")
    for name in given.only:
        output, layers = bench.errors(name)
        print(f"| {name} | {output:.4f} | {layers:.4f} |", flush=True)


def _guided(output: torch.Tensor) -> torch.Tensor:
    without, prompts = output.chunk(2)
    return without + GUIDANCE * (prompts - without)


def _columns(layer: Any, x: torch.Tensor) -> torch.Tensor:
    """[rows, columns] of what a layer multiplies its weight with."""
    if isinstance(layer, nn.Linear):
        return x.flatten(0, -2)
    patches = nn.functional.unfold(x, layer.kernel_size, padding=layer.padding, stride=layer.stride)
    return patches.transpose(1, 2).flatten(0, 1)


if __name__ == "__main__":
    main()
