"""A user of the installed package aligns models in the hub's format, and plain diffusers loads the result."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from diffusers import FlowMatchEulerDiscreteScheduler
from transformers import CLIPImageProcessorPil

from tests.backprop.matrix.assemble import assemble
from tests.backprop.matrix.cases import CASES
from tests.backprop.test_bypass import safety_checker
from tests.wheel.conftest import Call

processor = partial(CLIPImageProcessorPil, size={"height": 8, "width": 8}, crop_size={"height": 8, "width": 8})
MODELS: dict[str, tuple[str, dict[str, Any], str]] = {
    "SD 1.5 with a safety checker": (
        "StableDiffusion",
        {"safety_checker": safety_checker, "feature_extractor": processor},
        "float32",
    ),
    "SDXL in float16, whose autoencoder decodes in float32": ("StableDiffusionXL", {}, "float16"),
    "SD3": ("StableDiffusion3", {}, "bfloat16"),
    "FLUX with dynamic shifting": (
        "Flux",
        {"scheduler": partial(FlowMatchEulerDiscreteScheduler, use_dynamic_shifting=True)},
        "bfloat16",
    ),
}
ESTIMATORS = """
import sys
import torch
from sdo_ray import differentiable_sample
from sdo_ray.backprop import available, called_scheduler, sampler_plan
from sdo_ray.models.load import load_pipeline
from sdo_ray.models.parameters import trained_parameters
from sdo_ray.models.policy import attach_working_copy
from sdo_ray.models.precision import own_precision
from sdo_ray.models.settings import ModelSettings
base, dtype = sys.argv[1:]
pipeline = load_pipeline(base, dtype)
trained = trained_parameters(attach_working_copy(pipeline.components, ModelSettings(base=base, lora={"rank": 2})))
call = {"prompt": ["a cat"], "num_inference_steps": 6, "height": 32, "width": 32}
for name in available():
    with own_precision(pipeline):
        scheduler = called_scheduler(pipeline, **call)
        plan = sampler_plan(scheduler, None, name, generator=torch.Generator().manual_seed(0))
        images = differentiable_sample(pipeline, plan, generator=torch.Generator().manual_seed(0), **call)
        gradients = torch.autograd.grad(images.float().square().mean() * 1000, trained.values(), allow_unused=True)
    got = [g for g in gradients if g is not None]
    print(name, bool(got and all(g.isfinite().all() for g in got) and any(g.any() for g in got)))
"""
RELOADED = """
import sys
import torch
from diffusers import DiffusionPipeline
index = DiffusionPipeline.load_config(sys.argv[1])
absent = {name: None for name, entry in index.items() if entry == [None, None]}  # what SD3 has without T5
pipeline = DiffusionPipeline.from_pretrained(sys.argv[1], dtype=torch.float32, **absent)
def image():
    noise = torch.Generator().manual_seed(0)
    return pipeline(["a cat"], num_inference_steps=2, height=32, width=32, generator=noise, output_type="latent").images
before = image()
pipeline.load_lora_weights("runs/tiny/adapter")
print((image() - before).abs().max().item() > 0, getattr(pipeline, "safety_checker", None) is not None)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "parts", "dtype"), MODELS.values(), ids=MODELS.keys())
def test_aligned(call: Call, tmp_path: Path, kind: str, parts: dict[str, Callable[[], Any]], dtype: str) -> None:
    work, base = tmp_path / "work", tmp_path / "model"
    pipeline = assemble(f"{kind}Pipeline", CASES[kind].parts | parts)
    pipeline.save_pretrained(base)
    prompts = [f"a {what}" for what in ("cat", "dog", "cow", "fox", "owl", "bee", "ant", "elk")]
    for name, some in (("train", prompts[:4]), ("heldout", prompts[4:])):
        pq.write_table(pa.table({"prompt": some}), work / f"{name}.parquet")
    settings = {
        "run": {"name": "tiny"},
        "model": {"base": str(base), "dtype": dtype, "lora": {"rank": 2, "alpha": 2.0}},
        "prompts": {"train": "train.parquet"},
        "sampling": {"num_inference_steps": 4, "guidance_scale": 3.0, "options": {"height": 32, "width": 32}},
        "rewards": {"terms": [{"name": "my_rewards:Mine"}]},
        "samplers": {"batch_size": 2},
        "training": {"updates": 2, "batch_size": 4, "learning_rate": 0.01},
        "evaluation": {"prompts": "heldout.parquet", "num_prompts": 4, "evaluators": [{"name": "heldout_preference"}]},
    }
    (work / "settings.yaml").write_text(yaml.safe_dump(settings))
    said = call("sdo", "align", "settings.yaml").stdout
    assert "my_rewards:Mine" in said
    checked = getattr(pipeline, "safety_checker", None) is not None
    assert ("learns without the model's safety_checker" in said) == checked
    assert call("python", "-c", RELOADED, str(base)).stdout.split() == ["True", str(checked)]
    arguments = ("--model", str(base), "--adapter", "runs/tiny/adapter", "--prompt", "a cat", "--steps", "2")
    call("sdo", "sample", *arguments, "--height", "32", "--width", "32", "--out", "cat.png")
    estimators = dict(line.split() for line in call("python", "-c", ESTIMATORS, str(base), dtype).stdout.splitlines())
    assert len(estimators) >= 11
    assert set(estimators.values()) == {"True"}, estimators
