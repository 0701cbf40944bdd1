"""Every recipe fits the class of model that it is for: its settings pass, and its LoRA binds all that it should."""

from pathlib import Path

import pytest

from pipelines.export import main as export
from sdo_ray.config.align import AlignSettings
from sdo_ray.config.align_checks import check_align
from sdo_ray.config.loading import load_settings
from sdo_ray.dry_batch.batch import dry_batch
from sdo_ray.models.policy import initial_policy
from sdo_ray.settings import SettingsError
from tests.support.recipes import MODELS, RECIPES, save_model, uses
from tests.support.runs import AlignProcess


def test_every_recipe_is_tried_and_says_where_it_comes_from() -> None:
    files = sorted(RECIPES.glob("*.yaml"))
    assert {file.stem for file in files} == MODELS.keys()
    page = (RECIPES.parents[1] / "docs/recipes.md").read_text()
    for file in files:
        assert f"`{file.name}`" in page
        lines = [line for line in file.read_text().splitlines() if line.startswith("#")]
        for head in ("# Source    ", "# Expected  ", "# Run       nothing at this size", "# Machines: ", "# Variants"):
            assert any(line.startswith(head) for line in lines), f"{file.name}: {head}"
        for machine in ("one GPU of 80 GB", "one GPU of 24 GB", "a node of 8 GPUs"):
            assert any(line.startswith(f"#   {machine}") for line in lines), f"{file.name}: {machine}"


@pytest.mark.parametrize("recipe", MODELS)
def test_settings_pass_and_layers_bind(recipe: str, tmp_path: Path) -> None:
    base = save_model(recipe, tmp_path / "model")
    for added in uses(recipe).values():
        settings = load_settings(AlignSettings, RECIPES / f"{recipe}.yaml", [*added, f"model.base={base}"])
        check_align(settings)
    weights = initial_policy(settings.model, 0)
    assert sum(".lora_A." in name for name in weights) == MODELS[recipe][3]


TINY = [
    "sampling.num_inference_steps=4",
    "rewards.terms=[{name: brightness, weight: 1.0}, {name: saturation, weight: 0.3}]",
    "evaluation.evaluators=[{name: sharpness}]",
    "evaluation.num_prompts=2",
    "samplers.num_gpus=0",
    "samplers.batch_size=2",
    "training.updates=2",
    "training.batch_size=4",
    "training.learning_rate=0.01",
    "tracking.preview_prompts=[]",
]
"""What makes a recipe one of a minute on a CPU, with rewards that need no weights."""
IMAGE = "sampling.options={height: 32, width: 32}"
FRAMES = "rewards.terms=[{name: brightness, frames: all}, {name: saturation, weight: 0.3, frames: first}]"
VIDEO = [
    "sampling.options={height: 32, width: 32, num_frames: 5}",
    FRAMES,
    "evaluation.evaluators=[{name: sharpness, frames: all}]",
]
FLUX1 = [
    "sampling.options={height: 32, width: 32, max_sequence_length: 16}",
    # The reader of fused layers in diffusers wants them of FLUX.1's own width.
    "model.lora.targets=[transformer_blocks.0.attn.to_q, to_add_out]",
]
SMALL: dict[str, list[str]] = {recipe: [IMAGE] for recipe in MODELS} | {
    "flux1-dev": FLUX1,
    "flux1-schnell": FLUX1,
    "flux2-klein-4b": [
        "sampling.options={height: 32, width: 32, text_encoder_out_layers: [1]}",
        "sampling.num_inference_steps=6",
    ],
    "wan21-1.3b": VIDEO,
    "wan22-ti2v-5b": VIDEO,
    "ltx2": ["sampling.options={height: 32, width: 32, num_frames: 9, frame_rate: 24.0}", *VIDEO[1:]],
}
"""Recipe -> what makes it small besides."""
NOT_DRAWN = {"sd35-medium"}
"""Where diffusers cannot read the Kohya file of the tiny model, and the export says so."""


def test_a_package_that_a_pipeline_cleans_prompts_with_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = save_model("wan21-1.3b", tmp_path / "model")
    settings = load_settings(AlignSettings, RECIPES / "wan21-1.3b.yaml", [f"model.base={base}"])
    monkeypatch.setattr("sdo_ray.config.calls.is_ftfy_available", lambda: False)
    with pytest.raises(SettingsError, match="cleans its prompts with the package ftfy, which is not installed; `pip"):
        check_align(settings)


@pytest.mark.parametrize("recipe", SMALL)
def test_a_tiny_batch_in_the_recipe_s_own_precision(recipe: str, tmp_path: Path) -> None:
    base = save_model(recipe, tmp_path / "model")
    settings = load_settings(AlignSettings, RECIPES / f"{recipe}.yaml", [*TINY, *SMALL[recipe], f"model.base={base}"])
    assert settings.model.dtype == "bfloat16"
    assert dry_batch(settings) is None


@pytest.mark.slow
@pytest.mark.parametrize("recipe", SMALL)
def test_two_updates_run_and_both_exports_load(recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = save_model(recipe, tmp_path / "model")
    where = [f"model.base={base}", f"run.storage={tmp_path}/runs"]
    changes = [part for change in [*TINY, *SMALL[recipe], *where] for part in ("--set", change)]
    with AlignProcess(str(RECIPES / f"{recipe}.yaml"), *changes) as process:
        assert "update 2/2" in process.finish()
    assert export([f"{tmp_path}/runs/{recipe}", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    for form in ("diffusers", "kohya"):
        [line] = [line for line in said.splitlines() if line.startswith(form)]
        assert ("grey levels of 255" in line) or (recipe in NOT_DRAWN and "not drawn with" in line), line
