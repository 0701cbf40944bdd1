"""`sdo export`: what a finished run leaves, in every format, loaded again; and what cannot be, refused."""

from pathlib import Path

import pytest
import safetensors.torch
import torch
import yaml
from diffusers import StableDiffusionPipeline

from pipelines.export import main
from sdo_ray.config.align import AlignSettings
from sdo_ray.config.loading import load_settings
from sdo_ray.evaluation.outcome import Outcome, write_outcome
from sdo_ray.evaluation.result import BASE, CANDIDATE
from sdo_ray.evaluation.summary import Line
from sdo_ray.models.adapter_file import FILE
from sdo_ray.models.export import export_model
from sdo_ray.models.parameters import trained_parameters
from sdo_ray.models.policy import attach, initial_policy, load_model
from sdo_ray.models.settings import ModelSettings
from sdo_ray.storage import RunDirectory
from tests.models.adapters import trained_weights
from tests.support.runs import tiny_settings


def finished(directory: Path, base: Path, *, trained: bool = True, **model: object) -> Path:
    """The directory of a run as `sdo align` leaves it, but for its images."""
    settings = load_settings(AlignSettings, tiny_settings(directory, base, model=model))
    run = RunDirectory(settings.run.storage, settings.run.name)
    run.write_json("settings.json", settings.to_dict())
    made = directory / "made"
    export_model(made, settings.model, weights_of(settings.model, trained))
    run.copy_in(made)
    lines = (Line("smoothness", {BASE: 0.25, CANDIDATE: 0.5}, {}),)
    write_outcome(run, Outcome(lines, {"adapter": "adapter"}, 6))
    return Path(run.uri)


def weights_of(model: ModelSettings, trained: bool) -> dict[str, torch.Tensor]:
    if not trained:
        return initial_policy(model, 0)
    if model.train == "lora":
        return trained_weights(model.base, model.lora)
    modules = attach(load_model(model).components, model)
    return {name: p.detach() * 1.2 for name, p in trained_parameters(modules).items()}


def test_every_format_is_written_loaded_and_drawn_with(tiny_base: Path, tmp_path: Path, capsys) -> None:
    run, out = finished(tmp_path, tiny_base), tmp_path / "out"
    formats = [f"--format={form}" for form in ("diffusers", "kohya", "merged")]
    assert main([str(run), *formats, "--out", str(out), "--trigger", "glossy"]) == 0
    said = capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "model", FILE, "tiny.safetensors"]
    for form in ("diffusers", "kohya", "merged"):
        [line] = [line for line in said.splitlines() if line.startswith(form)]
        assert "grey levels of 255" in line
    alphas = {n: t for n, t in safetensors.torch.load_file(out / "tiny.safetensors").items() if n.endswith(".alpha")}
    assert set(map(float, alphas.values())) == {4.0}
    merged = StableDiffusionPipeline.from_pretrained(out / "model", safety_checker=None)
    assert not any("lora" in name for name, _ in merged.unet.named_parameters())


def test_the_card_says_how_it_was_made_and_whose_the_rewards_are(tiny_base: Path, tmp_path: Path) -> None:
    run, out = finished(tmp_path, tiny_base), tmp_path / "out"
    assert main([str(run), "--out", str(out), "--trigger", "glossy", "--no-check"]) == 0
    _, head, body = (out / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(head)["instance_prompt"] == "glossy"
    assert "lora" in yaml.safe_load(head)["tags"]
    for part in (
        "`glossy`",
        "| rank | 2 |",
        "| plan | sdo |",
        "| learning_rate | 0.01 |",
        "tests.support.ink:Ink",
        "0.5",
    ):
        assert part in body, part
    assert "| init |" not in body  # which is the default
    assert "jpeg_compressibility" not in body  # only watched
    assert 'load_lora_weights(".", weight_name="pytorch_lora_weights.safetensors")' in body
    assert "`tiny.safetensors`" in body


def test_a_dora_is_for_those_who_read_it_so(tiny_base: Path, tmp_path: Path, capsys) -> None:
    lora = {"rank": 2, "dora": True, "rank_pattern": {"attn2.to_q": 4}, "targets": ["to_q", "conv1"]}
    run, out = finished(tmp_path, tiny_base, lora=lora), tmp_path / "out"
    formats = [f"--format={form}" for form in ("diffusers", "kohya", "merged")]
    assert main([str(run), *formats, "--out", str(out)]) == 0
    said = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines() if not line.startswith(" "))
    assert "diffusers does not read this file, or not as the programs do that it is for" in said["kohya"]
    assert "grey levels" in said["diffusers"]
    assert "grey levels" in said["merged"]
    card = (out / "README.md").read_text()
    assert "With ComfyUI or Forge: `tiny.safetensors`" in card
    assert "| dora | True |" in card
    assert "alpha_pattern" not in card


def test_no_reward_need_be_on_the_machine(tiny_base: Path, tmp_path: Path) -> None:
    """The LoRA is handed out where people use it, and a reward of one's own lies where the run was."""
    run, out = finished(tmp_path, tiny_base), tmp_path / "out"
    settings = run / "settings.json"
    settings.write_text(settings.read_text().replace("tests.support.ink:Ink", "nowhere:Warmth"))
    assert main([str(run), "--out", str(out), "--no-check"]) == 0
    assert "| nowhere:Warmth | 1 | not said |" in (out / "README.md").read_text()


def test_an_adapter_without_effect_fails(tiny_base: Path, tmp_path: Path, capsys) -> None:
    run = finished(tmp_path, tiny_base, trained=False)
    assert main([str(run), "--out", str(tmp_path / "out")]) == 1
    assert "draws the base model's image: it has no effect" in capsys.readouterr().err


def test_a_model_that_was_trained_whole_is_handed_on(tiny_base: Path, tmp_path: Path, capsys) -> None:
    run, out = finished(tmp_path, tiny_base, train="full", lora=None), tmp_path / "out"
    assert main([str(run), "--format", "kohya", "--out", str(out)]) == 2
    assert "the run trained 'full' and handed out a complete model: there is no LoRA" in capsys.readouterr().err
    assert main([str(run), "--out", str(out)]) == 0
    assert "merged: " in capsys.readouterr().out
    StableDiffusionPipeline.from_pretrained(out / "model", safety_checker=None)


@pytest.mark.parametrize(
    ("gone", "said"), [("settings.json", "no run of `sdo align`"), ("outcome.json", "not complete")]
)
def test_what_is_no_finished_run_is_refused(tiny_base: Path, tmp_path: Path, capsys, gone: str, said: str) -> None:
    run = finished(tmp_path, tiny_base)
    (run / gone).unlink()
    assert main([str(run), "--out", str(tmp_path / "out")]) == 2
    assert f"RUN: {run} is {said}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_settings_file_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "settings.yaml").touch()
    assert main([str(tmp_path / "settings.yaml"), "--out", str(tmp_path / "out")]) == 2
    assert "settings.yaml' is a file; give the directory of a finished run" in capsys.readouterr().err
