"""The paths of a run on CUDA: sampling, both places of the backward pass, half precision, rewards, a whole run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from rewards import create
from rewards.scoring import score_with_gradient
from rewards.terms import Mixing, RewardTerm
from sdo_ray.models.load import load_pipeline
from sdo_ray.models.parameters import set_parameters
from sdo_ray.models.policy import attach_working_copy
from sdo_ray.models.settings import ModelSettings
from sdo_ray.rollout.contribution import compute_contribution
from sdo_ray.rollout.records import Contribution, PromptBatch
from sdo_ray.rollout.settings import PlanSettings, SamplingSettings
from sdo_ray.training.modules import Denoisers
from tests.support.policies import moved_policy
from tests.support.runs import AlignProcess, final_adapter, tiny_settings

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def exact_products() -> Any:
    """Without TF32, whose ten bits would hide a mistake."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def ink(images: torch.Tensor, prompts: Sequence[str], seeds: Sequence[int]) -> tuple[dict[str, Any], dict[str, Any]]:
    weight = torch.linspace(-1, 1, images[0].numel()).view(images[0].shape)
    return {"ink": (images * weight).sum(dim=(1, 2, 3))}, {"ink": weight.expand_as(images)}


def contribution(base: Path, device: str, dtype: str = "float32", backward: str = "sampler") -> Contribution:
    model = ModelSettings.model_validate({"base": str(base), "dtype": dtype})
    pipeline = load_pipeline(model.base, model.dtype, device)
    set_parameters(attach_working_copy(pipeline.components, model), moved_policy(model))
    return compute_contribution(
        pipeline,
        PromptBatch(0, (0, 1), ("a", "b")),
        0,
        seed=5,
        sampling=SamplingSettings(num_inference_steps=4, guidance_scale=2.0),
        plan=PlanSettings(name="sdo", options={"draw": "fixed", "at": [2]}),
        rewards=ink,
        terms=[RewardTerm("ink", 1.0)],
        mixing=Mixing(),
        backward=backward,
    )


def flat(gradient: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([g.flatten() for _, g in sorted(gradient.items())])


def test_the_gradient_is_that_of_the_cpu(tiny_base: Path) -> None:
    here, there = contribution(tiny_base, "cuda"), contribution(tiny_base, "cpu")
    assert here.num_samples == there.num_samples == 2
    torch.testing.assert_close(flat(here.gradient), flat(there.gradient), rtol=1e-3, atol=1e-4)


def test_twice_is_the_same_to_the_bit(tiny_base: Path) -> None:
    assert torch.equal(flat(contribution(tiny_base, "cuda").gradient), flat(contribution(tiny_base, "cuda").gradient))


def test_the_trainer_makes_the_same_gradient(tiny_base: Path) -> None:
    model = ModelSettings(base=str(tiny_base))
    module = Denoisers(model, moved_policy(model)).to("cuda")
    module(contribution(tiny_base, "cuda", backward="trainer").calls).backward()
    got = {name: p.grad.cpu() for name, p in module.named().items() if p.grad is not None}
    torch.testing.assert_close(flat(got), flat(contribution(tiny_base, "cuda").gradient), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_that_of_the_cpu(tiny_base: Path, dtype: str) -> None:
    """Of the same type, in which torch draws other noise than in float32."""
    here, there = (flat(contribution(tiny_base, device, dtype).gradient) for device in ("cuda", "cpu"))
    assert here.isfinite().all()
    assert torch.nn.functional.cosine_similarity(here, there, dim=0) > 0.99


def test_a_learned_reward_scores_alike(tiny_base: Path) -> None:
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    results = [
        score_with_gradient(create("preference", device=device), images, ["a", "b"]) for device in ("cuda", "cpu")
    ]
    (scores, gradient), (expected_scores, expected) = results
    torch.testing.assert_close(scores, expected_scores, rtol=1e-3, atol=1e-3)
    assert gradient is not None
    assert expected is not None
    assert torch.nn.functional.cosine_similarity(gradient.flatten(), expected.flatten(), dim=0) > 0.99


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_whole_run(tiny_base: Path, tmp_path: Path, dtype: str) -> None:
    """Sampler, reward and trainer share one GPU; the run ends with an adapter that learned."""
    changes: dict[str, dict[str, Any]] = {
        "model": {"dtype": dtype},
        "samplers": {"count": 1, "num_gpus": 0.3},
        "trainers": {"count": 1, "num_gpus": 0.3},
        "rewards": {"terms": [{"name": "tests.support.ink:Ink", "weight": 1.0, "num_gpus": 0.1}]},
        "training": {"updates": 3},
    }
    with AlignProcess(str(tiny_settings(tmp_path, tiny_base, **changes))) as run:
        run.finish()
    # Its factors B start at zero.
    assert all(w.any() for name, w in final_adapter(tmp_path).items() if ".lora_B." in name)
