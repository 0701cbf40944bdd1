"""Contributions of what is no image: the same gradient with and without activations kept, and that of autograd."""

from typing import Any, get_args

import pytest
import torch

from rewards import create
from rewards.frames import Frames, OfFrames
from rewards.scoring import score_with_gradient
from rewards.terms import Mixing, RewardTerm
from sdo_ray.models.denoisers import find_denoisers
from sdo_ray.models.parameters import trained_parameters
from sdo_ray.rollout.contribution import compute_contribution
from sdo_ray.rollout.records import PromptBatch
from sdo_ray.rollout.sampling import draw, noise
from sdo_ray.rollout.settings import KeptGraph, PlanSettings, SamplingSettings
from tests.backprop.matrix.assemble import assemble
from tests.backprop.matrix.cases import CASES
from tests.backprop.matrix.check import adapt
from tests.support.samples import Loudness

BATCH = PromptBatch(0, (4, 9), ("a", "b"))
KINDS: dict[str, tuple[Any, dict[str, Any], tuple[int, ...]]] = {
    "Wan": (
        OfFrames(create("sharpness"), Frames(2)),
        {"height": 32, "width": 32, "num_frames": 5, "max_sequence_length": 16},
        (5, 3, 32, 32),
    ),
    "AudioLDM": (Loudness(), {"audio_length_in_s": 4.0}, (1, 64)),
    "StableAudio": (Loudness(), {"audio_end_in_s": 2.0}, (2, 7)),
}


@pytest.mark.parametrize("name", KINDS)
def test_of_each_kind(name: str) -> None:
    reward, options, shape = KINDS[name]
    pipeline = assemble(f"{name}Pipeline", CASES[name].parts)
    adapt(pipeline)
    pipeline.set_progress_bar_config(disable=True)
    sampling = SamplingSettings(num_inference_steps=2, guidance_scale=2.0, options=options)
    seen: list[torch.Tensor] = []

    def rewards(samples: torch.Tensor, prompts: Any, seeds: Any) -> Any:
        seen.append(samples)
        scores, gradient = score_with_gradient(reward, samples, list(prompts))
        return {"r": scores}, {"r": gradient}

    made = [
        compute_contribution(
            pipeline,
            BATCH,
            0,
            seed=1,
            sampling=sampling,
            plan=PlanSettings(name="full"),
            rewards=rewards,
            terms=[RewardTerm("r", 1.0)],
            mixing=Mixing(),
            kept_graph=kept_graph,
        )
        for kept_graph in get_args(KeptGraph)
    ]
    assert seen[0].shape == (2, *shape)
    plain = draw(pipeline, sampling.pipeline_call(BATCH.prompts), noise(1, BATCH.rows))
    assert all(torch.equal(samples, plain) for samples in seen)
    assert all(contribution.scores == made[0].scores for contribution in made)
    assert made[0].gradient.keys() == trained_parameters(find_denoisers(pipeline)).keys()
    kept, *others = (contribution.gradient.vector for contribution in made)
    assert kept.norm() > 0
    assert all((kept - again).norm() < 1e-3 * kept.norm() for again in others)
