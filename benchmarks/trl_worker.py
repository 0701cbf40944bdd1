"""TRL's AlignProp trainer, in an environment of its own, with nothing of this project in it.

`benchmarks.against_trl` runs it, says over the standard input what to do, a word a line, and reads a line of JSON for
each.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from functools import partial
from typing import Any

import torch

from benchmarks.tensor_memory import peak_bytes


def main() -> None:
    """Answer `plain` and `update` with CPU seconds and `peak` with an update's bytes, until the input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    for name in ("steps", "batch", "last"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--guidance", type=float, required=True)
    parser.add_argument("--checkpoint", type=int, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    trainer = make_trainer(given)
    pipeline = trainer.sd_pipeline.sd_pipeline

    def plain() -> None:
        pipeline(
            ["a red heart"] * given.batch,
            num_inference_steps=given.steps,
            guidance_scale=given.guidance,
            output_type="pt",
        )

    answers = sys.stdout
    sys.stdout = sys.stderr
    for line in sys.stdin:
        word = line.strip()
        work = plain if word == "plain" else partial(trainer.step, 0, 0)
        if word == "peak":
            answer: float = peak_bytes(work)
        else:
            began = time.process_time()
            work()
            answer = time.process_time() - began
        print(json.dumps(answer), file=answers, flush=True)


def make_trainer(given: argparse.Namespace) -> Any:
    """AlignProp's trainer as its example makes it, but without noise in DDIM, and with a reward that costs nothing."""
    from accelerate import PartialState
    from trl import AlignPropConfig, AlignPropTrainer, DefaultDDPOStableDiffusionPipeline

    PartialState()  # its logger needs one
    pipeline = DefaultDDPOStableDiffusionPipeline(given.model, use_lora=True)
    pipeline.sd_pipeline.set_progress_bar_config(disable=True)
    config = AlignPropConfig(
        sample_num_steps=given.steps,
        sample_eta=0.0,
        sample_guidance_scale=given.guidance,
        train_batch_size=given.batch,
        train_gradient_accumulation_steps=1,
        train_learning_rate=1e-4,
        truncated_backprop_rand=False,
        truncated_backprop_timestep=given.steps - given.last,
        mixed_precision="no",
    )

    def reward(images: torch.Tensor, prompts: Any, metadata: Any) -> tuple[torch.Tensor, dict[str, Any]]:
        return images.mean(dim=(1, 2, 3)), {}

    trainer = AlignPropTrainer(config, reward, lambda: ("a red heart", {}), pipeline)
    if not given.checkpoint:
        with_gradient = pipeline.rgb_with_grad
        pipeline.rgb_with_grad = lambda *args, **kwargs: with_gradient(*args, **kwargs, gradient_checkpoint=False)
    trainer.sd_pipeline.sd_pipeline.set_progress_bar_config(disable=True)
    return trainer


if __name__ == "__main__":
    main()
