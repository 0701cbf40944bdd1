"""Whoever makes gradients checkpoints blocks as the settings say."""

from pathlib import Path

import pytest
from diffusers import UNet2DConditionModel

from sdo_ray.fidelity.worker import GradientConfig, GradientMaker
from sdo_ray.input_optimization.optimizer import RowOptimizer
from sdo_ray.input_optimization.records import OptimizerConfig
from sdo_ray.input_optimization.settings import FrozenModelSettings, OptimizationSettings, TextMixSettings
from sdo_ray.models.settings import ModelSettings
from sdo_ray.rollout.reward_settings import MixSettings, RewardSettings
from sdo_ray.rollout.settings import PlanSettings, SamplerSettings, SamplingSettings
from sdo_ray.step_search.worker import TrialActor, TrialConfig

SAMPLING, SAMPLERS = SamplingSettings(num_inference_steps=2), SamplerSettings()


def fidelity(base: str, blocks: bool | None) -> None:
    model = ModelSettings(base=base, checkpoint_blocks=blocks)
    mix = MixSettings(terms=[RewardSettings(name="ink")])
    GradientMaker(GradientConfig(0, model, SAMPLING, mix, SAMPLERS, draws=1, checkpoint=False))


def schedule(base: str, blocks: bool | None) -> None:
    TrialActor(
        TrialConfig(0, ModelSettings(base=base, checkpoint_blocks=blocks), SAMPLING, None, SAMPLERS, PlanSettings())
    )


def optimize(base: str, blocks: bool | None) -> None:
    model, mix = (
        FrozenModelSettings(base=base, checkpoint_blocks=blocks),
        TextMixSettings(terms=[RewardSettings(name="ink")]),
    )
    optimization = OptimizationSettings(variable="latents", learning_rate=0.1)
    RowOptimizer(OptimizerConfig(0, model, SAMPLING, PlanSettings(), mix, optimization, SAMPLERS, "prompt"), {})


@pytest.mark.parametrize("worker", [fidelity, schedule, optimize])
def test_the_setting_is_followed(tiny_base: Path, monkeypatch: pytest.MonkeyPatch, worker) -> None:
    switched: list[str] = []
    monkeypatch.setattr(UNet2DConditionModel, "enable_gradient_checkpointing", lambda self: switched.append("on"))
    for blocks, expected in ((None, []), (False, []), (True, ["on"])):
        worker(str(tiny_base), blocks)
        assert switched == expected
