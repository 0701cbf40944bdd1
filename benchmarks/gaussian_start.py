"""The first steps in closed form, as if latents were normally distributed, beside as many held steps.

    python -m benchmarks.gaussian_start [--latents 64] [--batch 4] [--seed 1]

On the embedded model with a random adapter, N = 20. Mean and covariance are of the final latents of other prompts, of
the model and not of the prompt. For a normal distribution the sampler's equation has a solution (Wang and Vastola 2024,
arXiv 2412.09726), which takes the noise to the m-th time step at once; from there all steps are exact. Beside it
`taylor` with the same number of computed steps, m of the first ones held. Printed is the relative distance of the final
latents from those of exact steps.
"""

from __future__ import annotations

import argparse
import random

import pyarrow.parquet as pq
import torch

from benchmarks.cheap_updates import GUIDANCE, PROMPTS, Bench
from benchmarks.linear_solvers import LinearSolver, ddim
from sdo_ray.rollout.sampling import draw

STEPS, SKIPPED, BATCH = 20, (1, 2, 3, 5), 16
PROMPTS_FILE = "pipelines/configs/prompts/emoji_train.parquet"


class Normal:
    """A normal distribution of latents.

    Args:
        latents: [n, C, h, w], of which it has the mean and covariance.
    """

    def __init__(self, latents: torch.Tensor) -> None:
        x = latents.flatten(1).double()
        self._mean = x.mean(0)
        _, s, self._axes = torch.linalg.svd((x - self._mean) / len(x) ** 0.5, full_matrices=False)
        self._variances = s**2

    def moved(self, z: torch.Tensor, alpha_from: float, alpha_to: float) -> torch.Tensor:
        """Where the equation without noise takes latents.

        Along an axis of variance v a deviation from the mean goes with sqrt(alpha v + 1 - alpha).

        Args:
            z: [B, C, h, w], at cumulative alpha `alpha_from`.
            alpha_from: in (0, 1).
            alpha_to: likewise.
        """
        off = z.flatten(1).double() - alpha_from**0.5 * self._mean
        here, there = (alpha * self._variances + 1 - alpha for alpha in (alpha_from, alpha_to))
        others = ((1 - alpha_to) / (1 - alpha_from)) ** 0.5
        along = (off @ self._axes.T) * ((there / here) ** 0.5 - others)
        made = alpha_to**0.5 * self._mean + others * off + along @ self._axes
        return made.view_as(z).to(z.dtype)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gaussian_start",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--latents", type=int, default=64, help="final latents to fit (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=4, help="prompts to compare, up to 8 (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the noise (default: %(default)s)")
    given = parser.parse_args()
    torch.set_num_threads(1)
    bench = Bench(STEPS, given.batch, "float32")
    pipe, model, times = bench.pipe, bench.scheduler, bench.times()
    alphas = [float(model.alphas_cumprod[t]) for t in times]
    prompts = [p for p in pq.read_table(PROMPTS_FILE)["prompt"].to_pylist() if p not in PROMPTS]
    random.Random(0).shuffle(prompts)
    call = {"guidance_scale": GUIDANCE, "num_inference_steps": STEPS}
    made = [
        draw(
            pipe,
            call | {"prompt": prompts[i : i + BATCH]},
            [_noise(5_000 + i + j) for j in range(BATCH)],
            None,
            "latent",
        )
        for i in range(0, given.latents, BATCH)
    ]
    normal = Normal(torch.cat(made))
    generators = [_noise(given.seed * 100 + i) for i in range(given.batch)]
    compared = call | {"prompt": bench.prompts}
    start = torch.cat([torch.randn(1, *made[0].shape[1:], generator=g) for g in generators])
    exact = draw(pipe, compared | {"latents": start}, generators, None, "latent")
    print("| steps not computed | in closed form | `taylor` |\n|---|---|---|")
    for m in SKIPPED:
        pipe.scheduler = LinearSolver.of(model, times[m:], ddim(model, times[m:]))
        rest = {"timesteps": times[m:], "num_inference_steps": None}
        moved = normal.moved(start, alphas[0], alphas[m])
        closed = draw(pipe, compared | rest | {"latents": moved}, generators, None, "latent")
        pipe.scheduler = model
        held = {2 * i + 1 for i in range(m)}
        runner = bench.runner({"cache": {"name": "taylor", "steps": [i for i in range(STEPS) if i not in held]}})
        taylor = draw(pipe, compared | {"latents": start}, generators, runner, "latent")
        off = [float((z - exact).norm() / exact.norm()) for z in (closed, taylor)]
        print(f"| {m} | {off[0]:.3f} | {off[1]:.3f} |", flush=True)


def _noise(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


if __name__ == "__main__":
    main()
