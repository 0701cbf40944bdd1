"""A row's image and mask reach the pipeline, for learning and for the comparison alike."""

from pathlib import Path
from typing import Any

import pytest
import torch

from sdo_ray.config.align import AlignSettings
from sdo_ray.config.align_checks import check_align
from sdo_ray.config.loading import load_settings
from sdo_ray.evaluation.images import image_blocks
from sdo_ray.evaluation.settings import WatchSettings
from sdo_ray.prompts.heldout import draw_questions, read_heldout
from sdo_ray.prompts.inputs import COLUMN, from_column
from sdo_ray.rollout.preview import preview
from sdo_ray.rollout.sampling import draw_images
from sdo_ray.settings import SettingsError
from tests.backprop.matrix.assemble import assemble
from tests.backprop.matrix.cases import CASES
from tests.pipelines.test_any_model import inpainting


@pytest.fixture
def settings(tmp_path: Path) -> AlignSettings:
    return load_settings(AlignSettings, inpainting(tmp_path))


def test_they_reach_the_pipeline(settings: AlignSettings) -> None:
    check_align(settings)
    heldout = read_heldout(settings.evaluation.prompts, "prompt", inputs=settings.prompts.inputs)
    [block, _] = image_blocks(["base"], draw_questions(heldout, 4, seed=0), 2)
    prompts, rows = block["prompt"].to_pylist(), from_column(block[COLUMN].to_pylist())
    assert [Path(str(row["image"])).stem for row in rows] == prompts
    pipeline: Any = assemble("StableDiffusionInpaintPipeline", CASES["StableDiffusionInpaint"].parts)
    pipeline.set_progress_bar_config(disable=True)
    call = (pipeline, settings.shown_sampling, 3, ["same", "same"], [0, 0], None)
    with torch.no_grad():
        first, second = draw_images(*call, inputs=rows)
    assert (first - second).abs().mean() > 0.01  # of the same prompt and noise
    config = settings.sampler_config()
    assert len(config.preview_inputs) == len(config.preview_prompts) == 1
    seen = [preview(pipeline, config.sampling, ["a"], 3, 1, inputs=[row]) for row in rows]
    assert seen[0] != seen[1]
    watching = settings.model_copy(
        update={"evaluation": settings.evaluation.model_copy(update={"watch": WatchSettings(every=1, num_prompts=2)})}
    )
    looked_at = watching.held_out({})
    assert looked_at is not None
    assert [Path(str(row["image"])).stem for row in looked_at.inputs] == list(looked_at.prompts)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("prompts.inputs={smell: source}", "prompts.inputs: StableDiffusionInpaintPipeline takes no 'smell'"),
        ("prompts.inputs={image: nothing}", "has no column 'nothing'"),
        ("sampling.options={image: 1, height: 32}", "prompts.inputs: 'image' is given anyway"),
        ("prompts.inputs={prompt: source}", "prompts.inputs: 'prompt' is given anyway"),
        ("tracking.preview_prompts=[zebra]", "tracking.preview_prompts: 'zebra' is no prompt of"),
    ],
)
def test_what_cannot_be_is_said_before_work_starts(tmp_path: Path, change: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        check_align(load_settings(AlignSettings, inpainting(tmp_path), [change]))
    assert said in str(caught.value)
