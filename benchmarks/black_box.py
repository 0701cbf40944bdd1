"""Policy-gradient estimators on the embedded model: how near to the gradient, and what is learned, for how much work.

    python -m benchmarks.black_box gradients    a reward that has a gradient, as if it had none: cosine with it
    python -m benchmarks.black_box learning     jpeg_compressibility, which has none, on held-out prompts

Work is counted in rows of denoiser calls, guidance included: forward passes, and backward passes as two.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.learning import measured
from rewards import create
from rewards.scoring import score, score_with_gradient
from rewards.terms import Mixing, RewardTerm
from sdo_ray.models.denoisers import find_denoisers
from sdo_ray.models.load import load_pipeline
from sdo_ray.models.parameters import trained_parameters
from sdo_ray.models.trained.lora import LoraSettings, attach
from sdo_ray.prompts.read import read_prompts
from sdo_ray.rollout.contribution import compute_contribution
from sdo_ray.rollout.records import PromptBatch
from sdo_ray.rollout.settings import PlanSettings, SamplingSettings

PLANS: Mapping[str, PlanSettings] = {
    "sdo": PlanSettings(name="sdo"),
    "group": PlanSettings(name="group", options={"children": 8}),
    "group-24": PlanSettings(name="group", options={"children": 24}),
    "tempflow": PlanSettings(name="tempflow", options={"seeds": 2, "children": 4, "kernel": "cps"}),
    "flow-grpo": PlanSettings(name="flow-grpo", options={"samples": 8, "kernel": "ddim", "eta": 1.0}),
    "dance-grpo": PlanSettings(name="dance-grpo", options={"samples": 8, "kernel": "ddim", "eta": 1.0}),
    "branch-grpo": PlanSettings(name="branch-grpo", options={"splits": [0, 2, 4], "kernel": "ddim", "eta": 1.0}),
    "pair": PlanSettings(name="pair", options={"pairs": 4}),
}
"""Eight images a prompt, but for `group-24`. The embedded model is not of flow matching, so kernels are DDIM's."""


@dataclass
class Work:
    """Of denoiser calls."""

    rows: int = 0
    """Forward passes, and backward passes as two."""


@contextmanager
def counted(denoiser: torch.nn.Module) -> Iterator[Work]:
    """Count the rows of the denoiser's calls within the block."""
    work = Work()

    def add(_: Any, args: tuple[Any, ...], output: Any) -> None:
        sample = output[0] if isinstance(output, tuple) else output.sample
        work.rows += len(sample) * (3 if sample.requires_grad else 1)

    handle = denoiser.register_forward_hook(add)
    try:
        yield work
    finally:
        handle.remove()


@dataclass(frozen=True)
class Setting:
    """What is the same for all that is compared."""

    steps: int
    guidance: float
    prompts: int
    """Of an update."""
    rank: int
    learning_rate: float


class Run:
    """The embedded model, a reward, and one estimator."""

    def __init__(self, setting: Setting, plan: PlanSettings, reward: str, seed: int, b: float = 0.0) -> None:
        torch.manual_seed(0)  # one adapter for all: gradients are compared by its parameters
        self.setting, self.plan, self.seed = setting, plan, seed
        self.reward, self.teacher = reward, create(reward)
        self.pipeline = load_pipeline("zoo://emoji")
        attach(self.pipeline.components, LoraSettings(rank=setting.rank, alpha=float(setting.rank)))
        self.denoisers = find_denoisers(self.pipeline)
        self.parameters = trained_parameters(self.denoisers)
        if b:  # away from the start, where one factor has no gradient
            for name, parameter in self.parameters.items():
                if "lora_B" in name:
                    torch.nn.init.normal_(parameter.data, std=b)
        self.sampling = SamplingSettings(num_inference_steps=setting.steps, guidance_scale=setting.guidance)

    def contribution(self, update: int, prompts: Sequence[str], first_row: int) -> tuple[torch.Tensor, int, float]:
        """Mean gradient as one vector, rows of work, and CPU seconds."""

        def rewards(images: torch.Tensor, texts: Sequence[str], seeds: Sequence[int]) -> Any:
            if self.plan.is_policy_gradient:
                return {self.reward: score(self.teacher, images, list(texts))}, {self.reward: None}
            scores, gradient = score_with_gradient(self.teacher, images, list(texts))
            return {self.reward: scores}, {self.reward: gradient}

        batch = PromptBatch(update, tuple(range(first_row, first_row + len(prompts))), tuple(prompts))
        began = time.process_time()
        with counted(next(iter(self.denoisers.values()))) as work:
            made = compute_contribution(
                self.pipeline,
                batch,
                update,
                seed=self.seed,
                sampling=self.sampling,
                plan=self.plan,
                rewards=rewards,
                terms=[RewardTerm(self.reward, 1.0)],
                mixing=Mixing(),
                differentiable=not self.plan.is_policy_gradient,
            )
        vector = torch.cat([made.gradient[name].flatten() for name in self.parameters])
        return vector / max(1, made.num_samples), work.rows, time.process_time() - began


def gradients(setting: Setting, names: Sequence[str], reward: str, prompts: Sequence[str], draws: int) -> None:
    """Cosine of one batch's gradient, and of the mean over all, with full backpropagation's mean over as many."""
    chosen = prompts[: setting.prompts]
    truth = _all(Run(setting, PlanSettings(name="full", options={"checkpoint": True}), reward, 0, 0.02), chosen, draws)
    reference = torch.stack([vector for vector, _, _ in truth]).mean(0)
    for name in names:
        found = _all(Run(setting, PLANS[name], reward, 1, 0.02), chosen, draws)
        vectors = torch.stack([vector for vector, _, _ in found])
        mean = vectors.mean(0)
        noise = (vectors - mean).square().sum(1).mean() / mean.square().sum()
        line = {
            "plan": name,
            "cosine": statistics.fmean(_cosine(vector, reference) for vector in vectors),
            "cosine of the mean": _cosine(mean, reference),
            "variance / |mean|^2": noise.item(),
            "rows": statistics.fmean(rows for _, rows, _ in found),
            "CPU seconds": statistics.fmean(seconds for _, _, seconds in found),
        }
        print(json.dumps(line), flush=True)


def learning(
    setting: Setting, names: Sequence[str], prompts: Sequence[str], heldout: Sequence[str], seeds: int, rows: int
) -> None:
    """Updates until so many rows of work are done, and the held-out scores then."""
    for seed in range(seeds):
        for name in names:
            run = Run(setting, PLANS[name], "jpeg_compressibility", seed)
            evaluators = {reward: create(reward) for reward in ("jpeg_compressibility", "heldout_alignment")}
            before = measured(run.pipeline, run.sampling, heldout, evaluators)
            optimizer = torch.optim.AdamW(run.parameters.values(), lr=setting.learning_rate, weight_decay=0.0)
            done, update, seconds = 0, 0, 0.0
            while done < rows:
                first = update * setting.prompts
                batch = [prompts[(first + i) % len(prompts)] for i in range(setting.prompts)]
                vector, made, took = run.contribution(update, batch, first)
                for parameter, g in zip(run.parameters.values(), vector.split(_sizes(run)), strict=True):
                    parameter.grad = -g.view_as(parameter)
                optimizer.step()
                done, update, seconds = done + made, update + 1, seconds + took
            after = measured(run.pipeline, run.sampling, heldout, evaluators)
            gains = {reward: _gain(before[reward], after[reward]) for reward in evaluators}
            line = {"plan": name, "seed": seed, "updates": update, "rows": done, "CPU seconds": seconds, "gain": gains}
            print(json.dumps(line), flush=True)


def _gain(before: Sequence[float], after: Sequence[float]) -> dict[str, float]:
    """Mean difference over the prompts, and its 95 % interval's half width."""
    differences = [b - a for a, b in zip(before, after, strict=True)]
    half = 1.96 * statistics.stdev(differences) / len(differences) ** 0.5
    return {"mean": statistics.fmean(differences), "half width": half, "before": statistics.fmean(before)}


def _all(run: Run, prompts: Sequence[str], draws: int) -> list[tuple[torch.Tensor, int, float]]:
    return [run.contribution(i, prompts, i * len(prompts)) for i in range(draws)]


def _cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return torch.nn.functional.cosine_similarity(a, b, dim=0).item()


def _sizes(run: Run) -> list[int]:
    return [parameter.numel() for parameter in run.parameters.values()]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("gradients", "learning"))
    parser.add_argument("--plans", nargs="+", choices=PLANS, default=list(PLANS))
    parser.add_argument("--reward", default="preference", help="of `gradients`")
    parser.add_argument("--prompts-file", default="pipelines/configs/prompts/emoji_train.parquet")
    parser.add_argument("--heldout-file", default="pipelines/configs/prompts/emoji_heldout.parquet")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--prompts", type=int, default=2, help="of an update")
    parser.add_argument("--draws", type=int, default=16, help="of `gradients`")
    parser.add_argument("--rows", type=int, default=12_000, help="of `learning`")
    parser.add_argument("--seeds", type=int, default=3, help="of `learning`")
    parser.add_argument("--heldout", type=int, default=32, help="prompts of `learning`")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    setting = Setting(given.steps, given.guidance, given.prompts, 8, given.learning_rate)
    prompts = read_prompts(given.prompts_file, "prompt")
    if given.what == "gradients":
        gradients(setting, given.plans, given.reward, prompts, given.draws)
    else:
        plans = [name for name in given.plans if PLANS[name].is_policy_gradient]
        learning(
            setting,
            plans,
            prompts,
            read_prompts(given.heldout_file, "prompt")[: given.heldout],
            given.seeds,
            given.rows,
        )


if __name__ == "__main__":
    main()
