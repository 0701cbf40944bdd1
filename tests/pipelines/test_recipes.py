"""Every recipe fits the class of model that it is for: its settings pass, and its LoRA binds all that it should."""

from pathlib import Path

import pytest

from sdo_ray.config.align import AlignSettings, check_align
from sdo_ray.config.loading import load_settings
from sdo_ray.models.policy import initial_policy
from tests.support.recipes import MODELS, RECIPES, save_model, uses


def test_every_recipe_is_tried_and_says_where_it_comes_from() -> None:
    files = sorted(RECIPES.glob("*.yaml"))
    assert {file.stem for file in files} == MODELS.keys()
    for file in files:
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
