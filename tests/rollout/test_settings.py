"""How settings become a pipeline's call, and terms of the mix."""

import ast
from dataclasses import asdict, fields
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from rewards.terms import RewardTerm, Smoothing
from sdo_ray.models.load import load_pipeline
from sdo_ray.rollout.reward_settings import RewardSettings
from sdo_ray.rollout.settings import SamplingSettings

REPOSITORY = Path(__file__).parents[2]


def test_one_negative_prompt_is_for_all_images(tiny_base: Path) -> None:
    pipeline = load_pipeline(str(tiny_base))

    def draw(**options: object) -> torch.Tensor:
        settings = SamplingSettings(num_inference_steps=2, guidance_scale=3.0, options=options)
        noise = [torch.Generator().manual_seed(i) for i in range(2)]
        return pipeline(generator=noise, output_type="pt", **settings.pipeline_call(["a", "b"])).images

    plain, avoiding = draw(), draw(negative_prompt="c")
    assert avoiding.shape == (2, 3, 16, 16)
    assert not torch.equal(plain[0], avoiding[0])
    assert not torch.equal(plain[1], avoiding[1])
    assert torch.equal(avoiding, draw(negative_prompt=["c", "c"]))
    assert draw(height=32, width=32).shape == (2, 3, 32, 32)


@pytest.mark.parametrize("bound", [{"cap": 2.0, "target": None}, {"cap": None, "target": 2.0}])
def test_a_term_has_all_that_its_settings_say(bound: dict[str, float | None]) -> None:
    """So that a field that is new to both is not dropped on the way."""
    said = {"name": "ink", "weight": -0.5, "text": "target", "label": "black", "weigh_by": "much"} | bound
    of_a_batch = {"shares": None}
    known = {field.name for field in fields(RewardTerm)} - of_a_batch.keys()
    assert said.keys() == known, "give the new field a value of its own here"
    texts = RewardSettings(**said)
    assert asdict(texts.term) == said | of_a_batch
    assert texts.key == texts.term.key == "black@target"
    del said["text"]
    assert said.keys() <= RewardSettings.model_fields.keys(), "a field that settings do not have"
    plain = RewardSettings(**said)
    assert asdict(plain.term) == said | of_a_batch | {"text": None}
    assert plain.key == "black"


def test_terms_are_made_from_settings_in_one_place() -> None:
    made = {
        file.relative_to(REPOSITORY).as_posix()
        for room in ("sdo_ray", "pipelines")
        for file in (REPOSITORY / room).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and "RewardTerm" in (getattr(node.func, "id", ""), getattr(node.func, "attr", ""))
    }
    assert made == {"sdo_ray/rollout/reward_settings.py", "sdo_ray/notebook/aligner.py"}


def test_smoothing_is_refused_where_it_would_not_smooth() -> None:
    assert RewardSettings(name="ink").smoothing is None
    assert RewardSettings.model_validate({"name": "ink", "smooth": {"shifts": 2}}).smoothing == Smoothing(shifts=2)
    with pytest.raises(ValidationError, match="takes shifts or noise above 0"):
        RewardSettings.model_validate({"name": "ink", "smooth": {"copies": 8}})
