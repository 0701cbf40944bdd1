"""Checks of how a pipeline is called."""

import json
import shutil
from pathlib import Path

import pytest
from diffusers import HeunDiscreteScheduler, HunyuanVideo15Pipeline, StableDiffusionPipeline

from sdo_ray.config.calls import check_estimator, check_options
from sdo_ray.models.load import load_scheduler
from sdo_ray.rollout.settings import PlanSettings, SamplingSettings
from sdo_ray.settings import SettingsError


@pytest.fixture
def second_order(tiny_base: Path, tmp_path: Path) -> str:
    """The tiny model with Heun's scheduler, which takes 2 n - 1 steps."""
    base = tmp_path / "heun"
    shutil.copytree(tiny_base, base, ignore=shutil.ignore_patterns("*.safetensors"))
    HeunDiscreteScheduler().save_pretrained(base / "scheduler")
    index = json.loads((base / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", "HeunDiscreteScheduler"]
    (base / "model_index.json").write_text(json.dumps(index))
    return str(base)


def test_the_steps_are_those_of_the_models_scheduler(second_order: str, tiny_base: Path) -> None:
    plan, sampling = PlanSettings(name="sdo", options={"K": 7}), SamplingSettings(num_inference_steps=4)
    assert {drawn.num_steps for drawn in check_estimator(plan, sampling, "plan", second_order)} == {7}
    for base in (str(tiny_base), None):
        with pytest.raises(SettingsError, match=r"plan\.options\.K: got 7; legal: an integer in 1 .. 4"):
            check_estimator(plan, sampling, "plan", base)


def test_a_model_without_scheduler_is_named(second_order: str) -> None:
    index = json.loads((Path(second_order) / "model_index.json").read_text())
    del index["scheduler"]
    (Path(second_order) / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(SettingsError, match=r"heun' has no scheduler of diffusers"):
        load_scheduler(second_order)


def test_guidance_is_given_to_calls_that_take_it() -> None:
    none = SamplingSettings(guidance_scale=None)
    with pytest.raises(
        SettingsError, match=r"^sampling\.guidance_scale: got 5, and the call of .*15Pipeline takes none; give null"
    ):
        check_options(HunyuanVideo15Pipeline, SamplingSettings())
    check_options(HunyuanVideo15Pipeline, none)
    check_options(StableDiffusionPipeline, SamplingSettings())
    assert none.pipeline_call(["a"]) == {"prompt": ["a"], "num_inference_steps": 50}
