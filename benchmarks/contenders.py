"""What is compared: every estimator with its default options, variants, and cheap ways to make the other steps."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from diffusers import DPMSolverMultistepScheduler

from sdo_ray.backprop import StepRunner, available
from sdo_ray.rollout.preparation import runner_of
from sdo_ray.rollout.settings import PlanSettings, SamplingSettings


@dataclass(frozen=True)
class Contender:
    """One way to make an update."""

    plan: PlanSettings
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """Settings of `sampling` that make the steps without a graph cheap."""
    every: int = 1
    """Above 1 it samples with DPM-Solver++ 2M, at one of so many of the sampler's time steps; images to measure are the
    sampler's own all the same."""

    def prepare(self, pipeline: Any, sampling: SamplingSettings) -> tuple[SamplingSettings, StepRunner | None]:
        """Give the pipeline the scheduler of its updates.

        Args:
            pipeline: with what is trained.
            sampling: how images are measured.

        Returns:
            How it samples to learn, and what makes the steps without a graph, for updates alone.
        """
        given = sampling.model_dump(exclude_defaults=True) | dict(self.sampling)
        if self.every > 1:
            pipeline.scheduler.set_timesteps(sampling.num_inference_steps)
            times = pipeline.scheduler.timesteps.tolist()[:: self.every]
            given |= {"num_inference_steps": len(times), "options": {"timesteps": times}}
            pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
        own = SamplingSettings.model_validate(given)
        return own, runner_of(pipeline, own)


SDO = Contender(PlanSettings(name="sdo"))
COPY = {"fast_copy": "bfloat16"}
CONTENDERS: Mapping[str, Contender] = {
    **{name: Contender(PlanSettings(name=name)) for name in available()},
    "sdo-early": Contender(PlanSettings(name="sdo", options={"draw": "early"})),
    **{
        f"sdo-taylor-{every}": replace(SDO, sampling={"cache": {"name": "taylor", "every": every}, **COPY})
        for every in (2, 3)
    },
    "sdo-half-steps": replace(SDO, every=2),
}
"""Name in the tables -> what it does."""
