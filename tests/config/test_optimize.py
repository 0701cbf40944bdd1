"""Settings of `sdo optimize`: what cannot work is refused up front; the configs that come with the package can."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from sdo_ray.config.loading import load_settings
from sdo_ray.config.optimize import OptimizeSettings, check_optimize
from sdo_ray.settings import SettingsError
from tests.backprop.tiny import pndm

REPOSITORY = Path(__file__).parents[2]
CONFIGS = sorted((REPOSITORY / "pipelines/configs").glob("optimize_*.yaml"))


@pytest.fixture
def path(tiny_base: Path, tmp_path: Path) -> Path:
    settings: dict[str, Any] = {
        "run": {"name": "tiny"},
        "model": {"base": str(tiny_base)},
        "rows": {"given": [{"prompt": "a", "target": "b"}, {"prompt": "c", "target": "d"}]},
        "optimization": {"variable": "latents", "learning_rate": 0.1},
        "rewards": {"terms": [{"name": "alignment", "text": "target"}, {"name": "alignment", "weight": 0.0}]},
        "sampling": {"num_inference_steps": 4},
    }
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings))
    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    (tmp_path / "text.png").write_text("no image")
    return tmp_path / "settings.yaml"


def refused(path: Path, *overrides: str) -> str:
    with pytest.raises(SettingsError) as error:
        check_optimize(load_settings(OptimizeSettings, path, overrides))
    return str(error.value)


def test_the_four_tasks_of_the_paper_come_with_the_package() -> None:
    names = [path.stem.removeprefix("optimize_") for path in CONFIGS]
    assert names == ["adversarial", "aesthetic", "style", "text"]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.stem)
def test_configs_load_and_can_work(config: Path) -> None:
    settings = load_settings(OptimizeSettings, config)
    check_optimize(settings)
    texts = settings.texts()
    assert len(texts["prompt"]) == 8
    assert OptimizeSettings.model_validate(settings.to_dict()) == settings
    assert settings.optimizer_config().column == "prompt"


CASES = {
    "unknown variable": (["optimization.variable=noise"], "optimization.variable: got 'noise' (str); input should be"),
    "no step size": (["optimization={variable: latents}"], "optimization.learning_rate: missing"),
    "no iterations": (["optimization.iterations=0"], "optimization.iterations: got 0"),
    "no such target column": (["rewards.terms.0.text=goal"], "rows.given: 2 of 2 rows have no text 'goal'"),
    "no such prompt column": (["rows.column=caption"], "rows have no text 'caption'"),
    "no rows": (["rows.given=[]"], "rows: got neither of `path` and `given`; give either"),
    "a row that is no mapping": (["rows.given=[a]"], "rows.given.0: got 'a'"),
    "missing file": (["rows={path: nowhere.parquet}"], "rows.path: 'nowhere.parquet' does not exist"),
    "several kept steps for latents": (["plan.options={K: 2}"], "keeps several steps that are not coupled"),
    "uncoupled estimators for latents": (["plan.name=drtune"], "keeps several steps that are not coupled"),
    "an impossible option of the plan": (["plan.options={K: 5}"], "plan.options.K: got 5; legal: an integer in 1 .. 4"),
    "an unknown plan": (["plan.name=sdoo"], "plan.name: got 'sdoo'"),
    "guidance in batches": (
        ["optimization.variable=guidance_scale"],
        "samplers.batch_size: got 8, but pipelines take one guidance scale a call",
    ),
    "guidance that a call takes none of": (
        ["optimization.variable=guidance_scale", "sampling.guidance_scale=null", "samplers.batch_size=1"],
        "optimization.variable: got 'guidance_scale', and sampling.guidance_scale is null: the call takes none",
    ),
    "guidance that is off": (
        ["optimization.variable=guidance_scale", "sampling.guidance_scale=1.0", "samplers.batch_size=1"],
        "sampling.guidance_scale: got 1, where guidance is off",
    ),
    "guidance on a sphere": (
        ["optimization.variable=guidance_scale", "optimization.keep_norm=true", "samplers.batch_size=1"],
        "optimization.keep_norm: the guidance scale is one number",
    ),
    "a leash longer than the sphere": (
        ["optimization.keep_norm=true", "optimization.max_change=2.5"],
        "optimization.max_change: got 2.5",
    ),
    "the variable given otherwise": (
        ["sampling.options={latents: 3}"],
        "sampling.options: latents is what is optimised; remove it here.",
    ),
    "unknown option of the call": (["sampling.options={heigth: 8}"], "takes no heigth here"),
    "unknown model": (["model.base=zoo://emojis"], "the zoo has zoo://emoji"),
    "unknown reward": (["rewards.terms.0.name=alignmnt"], "rewards.terms.0.name: there is no reward 'alignmnt'"),
    "nothing to follow": (["rewards.terms.0.weight=0.0"], "no reward has a weight other than 0"),
    "a reward twice for one text": (["rewards.terms.1.text=target"], "named more often: alignment@target"),
    "a held-out evaluator": (
        ["rewards.terms.0={name: heldout_alignment}"],
        "'heldout_alignment' is held out for evaluation",
    ),
    "a black box": (["rewards.terms.0={name: jpeg_compressibility}"], "has weight 1.0 but no gradient"),
    "a type of nothing": (
        ["model.dtypes={transformer: float32}"],
        "has no transformer with weights; it has text_encoder, unet, vae; name one of these",
    ),
    "latents by comparison": (
        ["plan.name=group", "samplers.batch_size=1"],
        "optimization.variable: got 'latents', which acts on an image by more than the outputs that 'group' compares; "
        "legal: prompt_embeds",
    ),
    "several rows that are compared": (
        ["plan.name=group", "optimization.variable=prompt_embeds"],
        "samplers.batch_size: got 8, but with 'group' a batch is the 8 images of a row; choose 1",
    ),
    "other policies of a frozen model": (
        ["plan={name: group, options: {kl: 0.01}}", "optimization.variable=prompt_embeds"],
        "plan: 'group' with these options learns by other policies' weights",
    ),
    "other noises than a row's": (
        ["plan={name: flow-grpo, options: {kernel: ddim}}", "optimization.variable=prompt_embeds"],
        "has 24 initial noises, and a row has one image of one noise",
    ),
    "a style image that is none": (
        ["rewards.terms.0={name: gram_style, options: {image: text.png}}"],
        "'text.png' cannot be read as an image",
    ),
    "a style image that is not there": (
        ["rewards.terms.0={name: gram_style, options: {image: blue.png}}"],
        "there is no file 'blue.png'",
    ),
    "a target that is no class": (
        ["rewards.terms.0={name: classification, text: target, options: {classes: [a, b]}}"],
        "rewards.terms.0: reward 'classification': 'd' is none of its classes a, b",
    ),
}


@pytest.mark.parametrize(("overrides", "said"), CASES.values(), ids=CASES.keys())
def test_refused(path: Path, monkeypatch, overrides: list[str], said: str) -> None:
    monkeypatch.chdir(path.parent)
    assert said in refused(path, *overrides)


def test_a_plan_may_keep_what_the_scheduler_takes(path: Path, tiny_base: Path) -> None:
    """Stable Diffusion 1.5's scheduler takes a step more than it is asked for."""
    base = path.parent / "base"
    shutil.copytree(tiny_base, base)
    pndm().save_pretrained(base / "scheduler")
    index = json.loads((base / "model_index.json").read_text())
    (base / "model_index.json").write_text(json.dumps(index | {"scheduler": ["diffusers", "PNDMScheduler"]}))
    last = [f"model.base={base}", "plan.options={draw: fixed, at: [4]}"]
    check_optimize(load_settings(OptimizeSettings, path, last))
    assert "in 0 .. 4" in refused(path, last[0], "plan.options={draw: fixed, at: [5]}")
    assert "in 0 .. 3" in refused(path, last[1])


def test_all_problems_at_once(path: Path) -> None:
    said = refused(path, "plan.name=x", "model.base=zoo://y", "rows.given=[]", "optimization.keep_norm=true",
                   "optimization.max_change=3.0")  # fmt: skip
    assert len(said.splitlines()) == 4


def test_several_kept_steps_are_fine_where_they_reach_the_variable(path: Path) -> None:
    for overrides in (["plan.name=full"], ["plan={name: draft, options: {K: 3}}"], ["plan={name: refl}"]):
        check_optimize(load_settings(OptimizeSettings, path, overrides))
    embeddings = ["optimization.variable=prompt_embeds", "plan.options={K: 3}"]
    check_optimize(load_settings(OptimizeSettings, path, embeddings))


def test_a_black_box_teaches_embeddings_by_comparison(path: Path) -> None:
    changes = ["plan.name=group", "optimization.variable=prompt_embeds", "samplers.batch_size=1"]
    check_optimize(load_settings(OptimizeSettings, path, [*changes, "rewards.terms.0={name: jpeg_compressibility}"]))
    check_optimize(load_settings(OptimizeSettings, path, changes))


def test_a_style_image_starts_at_the_settings_file(path: Path, tmp_path: Path, monkeypatch) -> None:
    settings = yaml.safe_load(path.read_text())
    settings["rewards"]["terms"].append({"name": "gram_style", "options": {"image": "red.png"}})
    path.write_text(yaml.safe_dump(settings))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    loaded = load_settings(OptimizeSettings, path)
    assert loaded.rewards.terms[2].options["image"] == str(tmp_path / "red.png")
    check_optimize(loaded)


def test_demands(path: Path) -> None:
    settings = load_settings(OptimizeSettings, path, ["samplers.count=3"])
    assert [str(demand) for demand in settings.demands()] == [
        "samplers: 3 x (1 CPU)",
        "reward alignment@target: 1 x (1 CPU)",
        "reward alignment: 1 x (1 CPU)",
    ]
