"""Settings of the comparison of gradients."""

from __future__ import annotations

from pydantic import Field

from sdo_ray.cheap_steps.settings import CheapStepsSettings
from sdo_ray.rollout.settings import PlanSettings
from sdo_ray.settings import Settings


class FidelitySettings(Settings):
    """Which gradients are compared with that of full backpropagation, and on how much."""

    plans: list[PlanSettings] = Field(
        default=[PlanSettings(name="sdo", options={"K": 1})],
        min_length=1,
        description="The estimators, beside `full`, which is always there.",
    )
    cheap_steps: list[CheapStepsSettings] = Field(
        default=[],
        description="Ways to make the steps without a graph. Each is measured with the first of `plans`, beside the "
        "same draws with exact steps.",
    )
    batches: int = Field(4, ge=2, description="Batches of `samplers.batch_size` prompts, each with its own noise.")
    draws: int = Field(3, ge=2, description="How often each plan's steps are drawn for each batch.")
    steps: bool = Field(True, description="Also compare the gradient of each single step.")
    checkpoint: bool = Field(
        False,
        description="For `full` and the single steps: make the activations again in the backward pass instead "
        "of keeping those of all steps, where they do not fit.",
    )
