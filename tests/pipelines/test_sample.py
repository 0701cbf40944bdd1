"""`sdo sample`: the images are those of plain diffusers, and what cannot work is refused."""

import wave
from pathlib import Path

import mlflow
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageChops

from pipelines.sample import main
from sdo_ray.models.load import load_pipeline
from sdo_ray.models.trained.lora import LoraSettings, save_lora
from sdo_ray.rollout.contact_sheet import grid
from tests.backprop.test_bypass import safety_checker
from tests.models.adapters import LORA, trained_weights
from tests.support.aligned import aligned
from tests.support.samples import saved
from tests.wheel.test_models import processor


def same(a: Image.Image, b: Image.Image) -> bool:
    return a.size == b.size and ImageChops.difference(a.convert("RGB"), b.convert("RGB")).getbbox() is None


@pytest.fixture
def adapter(tiny_base: Path, tmp_path: Path) -> Path:
    return save_lora(str(tiny_base), LORA, trained_weights(tiny_base), tmp_path / "adapter").parent


def test_draws_what_plain_diffusers_draws(tiny_base: Path, adapter: Path, tmp_path: Path, capsys) -> None:
    pq.write_table(pa.table({"text": ["c!", "d", "e"]}), tmp_path / "more.parquet")
    out = tmp_path / "out"
    what = ["--prompt", "a b", "--prompts", str(tmp_path / "more.parquet"), "--column", "text", "--limit", "2"]
    how = ["--steps", "3", "--guidance", "2.0", "--seed", "7", "--batch-size", "2"]
    assert main(["--model", str(tiny_base), "--adapter", str(adapter), "--out", str(out), *what, *how]) == 0
    files = [out / name for name in ("000_a_b.png", "001_c.png", "002_d.png", "sheet.png")]
    assert capsys.readouterr().out.split() == [str(file) for file in files]

    plain = StableDiffusionPipeline.from_pretrained(tiny_base, safety_checker=None)
    plain.load_lora_weights(adapter)
    noise = [torch.Generator().manual_seed(7 + i) for i in range(2)]
    expected = plain(["a b", "c!"], generator=noise, num_inference_steps=3, guidance_scale=2.0).images
    assert same(Image.open(files[0]), expected[0])
    assert same(Image.open(files[1]), expected[1])
    assert not same(Image.open(files[0]), Image.open(files[1]))
    assert Image.open(files[3]).size == (2 * 16 + 4, 2 * 16 + 4)


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        (
            "StableDiffusion",
            ["--set", "num_images_per_prompt=2"],
            "--set num_images_per_prompt: got 2, with which",
        ),
        ("StableDiffusion", ["--height", "33", "--width", "32"], "--set height: got 33, with which it fails: "),
        (
            "StableDiffusion",
            ["--height", "32"],
            "--set height: given alone, and a StableDiffusionPipeline then takes its",
        ),
        ("StableDiffusionInpaint", [], "--set, --input: the pipeline cannot be called like this: "),
        ("StableDiffusionInpaint", [], "if it needs image and mask_image, --input image=COLUMN gives each prompt its"),
        ("StableDiffusion", ["--out", "a.jpg"], "--out: 'a.jpg' is of a kind that is not written; it is a directory"),
        ("StableDiffusion", ["--out", "base/model_index.json"], "--out: 'base/model_index.json' is a file"),
    ],
)
def test_calls_that_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, kind: str, given: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(kind, tmp_path / "base")
    assert main(["--model", "base", "--prompt", "a", "--steps", "2", "--out", "a.png", *given]) == 2
    assert said in capsys.readouterr().err


def test_a_call_without_guidance(tmp_path: Path, capsys) -> None:
    how = ["--prompt", "a", "--steps", "2", "--height", "32", "--width", "32", "--out", str(tmp_path / "a.png")]
    how += ["--model", str(saved("HunyuanImage", tmp_path / "base"))]
    assert main([*how, "--guidance", "2"]) == 2
    assert (
        "--guidance: got 2, and the call of a HunyuanImagePipeline takes none; leave it out" in capsys.readouterr().err
    )
    assert main(how) == 0


def test_black_and_broken_images_are_said(tmp_path: Path, capsys) -> None:
    parts = {"safety_checker": safety_checker, "feature_extractor": processor}
    saved("StableDiffusion", tmp_path / "checked", **parts)
    broken = load_pipeline(str(tmp_path / "checked"))
    broken.safety_checker = None
    next(broken.unet.parameters()).data.fill_(torch.nan)
    broken.save_pretrained(tmp_path / "broken")
    common = ["--prompt", "a", "--steps", "1", "--height", "32", "--width", "32", "--out", str(tmp_path / "a.png")]
    for model, said in (
        ("checked", "1 of 1 are black, which is how the model's safety checker"),
        ("broken", "1 of 1 are not finite"),
    ):
        assert main(["--model", str(tmp_path / model), *common]) == 0
        assert said in capsys.readouterr().err


def test_one_file_and_the_adapter_makes_a_difference(tiny_base: Path, adapter: Path, tmp_path: Path) -> None:
    common = ["--model", str(tiny_base), "--prompt", "a", "--steps", "2"]
    assert main([*common, "--out", str(tmp_path / "base.png")]) == 0
    assert main([*common, "--out", str(tmp_path / "aligned.png"), "--adapter", str(adapter)]) == 0
    assert main([*common, "--out", str(tmp_path / "half.png"), "--dtype", "bfloat16"]) == 0
    base, aligned, half = (Image.open(tmp_path / f"{name}.png") for name in ("base", "aligned", "half"))
    assert base.size == half.size == (16, 16)
    assert not same(base, aligned)


def test_further_arguments_and_what_the_model_does_not_read(tiny_base: Path, tmp_path: Path, capsys) -> None:
    common = [
        "--model",
        str(tiny_base),
        "--prompt",
        "a b c d e f x y",
        "--steps",
        "2",
        "--out",
        str(tmp_path / "a.png"),
    ]
    assert main([*common, "--height", "24", "--width", "16", "--negative-prompt", "z", "--set", "eta=1.0"]) == 0
    assert "of the prompts 1 of 1 are longer than the 8 tokens that the model reads" in capsys.readouterr().err
    plain = StableDiffusionPipeline.from_pretrained(tiny_base, safety_checker=None)
    call = {"num_inference_steps": 2, "guidance_scale": 3.0, "generator": [torch.Generator().manual_seed(0)]}
    expected = plain(["a b c d e f"], height=24, width=16, negative_prompt=["z"], eta=1.0, **call).images[0]
    assert same(Image.open(tmp_path / "a.png"), expected)


def test_serves_the_champion(tiny_base: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    uri = f"sqlite:///{tmp_path}/runs/mlflow.db"
    champion = aligned(tiny_base, tmp_path / "champion")
    assert champion.register(uri, "served") == "models:/served/1"
    aligned(tiny_base, tmp_path / "other", dtype="bfloat16").register(uri, "served")
    mlflow.MlflowClient(uri, uri).set_registered_model_alias("served", "champion", "1")

    def draw(name: str, *arguments: str) -> Image.Image:
        assert main(["--out", str(tmp_path / name), "--prompt", "a", "--prompt", "b", *arguments]) == 0
        return Image.open(tmp_path / name)

    by_alias = draw("a.png", "--model", "models:/served@champion")
    assert same(by_alias, draw("b.png", "--model", "models:/served/1"))
    assert same(by_alias, draw("c.png", "--model", "models:/served/1", "--steps", "3", "--guidance", "2.0"))
    assert not same(by_alias, draw("d.png", "--model", "models:/served/1", "--steps", "2"))
    assert not same(by_alias, draw("e.png", "--model", "models:/served/2"))

    plain = StableDiffusionPipeline.from_pretrained(tiny_base, safety_checker=None)
    plain.load_lora_weights(champion.directory / "adapter")
    noise = [torch.Generator().manual_seed(i) for i in range(2)]
    call = {"num_inference_steps": 3, "guidance_scale": 2.0, "negative_prompt": ["z", "z"]}
    assert same(by_alias, grid(plain(["a", "b"], generator=noise, **call).images))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("models:/served@champion", "MLFLOW_TRACKING_URI: not set, and there is no"),
        ("models:/served", "--model: got 'models:/served'; a registered model is"),
    ],
)
def test_refuses_what_is_not_registered(tmp_path: Path, capsys, monkeypatch, model: str, said: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if said.startswith("--model"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    assert main(["--model", model, "--out", "out", "--prompt", "a"]) == 2
    assert said in capsys.readouterr().err
    assert main(["--model", model, "--out", "out", "--prompt", "a", "--adapter", "x"]) == 2
    assert "brings its own" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--prompt, --prompts: got neither"),
        (["--prompt", " "], "--prompt: got ' '"),
        (["--prompts", "nowhere.parquet"], "--prompts: 'nowhere.parquet' does not exist"),
        (["--prompt", "a", "--steps", "0", "--batch-size", "0"], "--batch-size: got 0; it is 1 or more"),
        (["--prompt", "a", "--model", "zoo://emojis"], "the zoo has zoo://emoji"),
        (["--prompt", "a", "--set", "heigth=8"], "--set: StableDiffusionPipeline takes no heigth here"),
        (["--prompt", "a", "--set", "height"], "--set: got 'height'"),
        (["--prompt", "a", "--adapter", "nowhere"], "has no pytorch_lora_weights.safetensors"),
    ],
)
def test_refuses(tiny_base: Path, tmp_path: Path, capsys, arguments: list[str], said: str) -> None:
    assert main(["--model", str(tiny_base), "--out", str(tmp_path / "out"), *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_refuses_an_adapter_of_another_model(tiny_base: Path, tmp_path: Path, capsys) -> None:
    other = save_lora("zoo://emoji", LoraSettings(), trained_weights("zoo://emoji", LoraSettings()), tmp_path)
    arguments = ["--model", str(tiny_base), "--out", str(tmp_path / "out"), "--prompt", "a", "--adapter", str(other)]
    assert main(arguments) == 2
    assert "does not fit StableDiffusionPipeline" in capsys.readouterr().err


def test_refuses_a_file_that_is_no_adapter(tiny_base: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "a.safetensors").write_text("not safetensors")
    arguments = ["--model", str(tiny_base), "--out", str(tmp_path / "out"), "--prompt", "a"]
    assert main([*arguments, "--adapter", str(tmp_path / "a.safetensors")]) == 2
    assert "is no safetensors file, or is cut: it has 15 bytes; download it again" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "options", "suffix"),
    [("Wan", ["num_frames=5", "height=16", "width=16"], ".webp"), ("AudioLDM", ["audio_length_in_s=4.0"], ".wav")],
)
def test_videos_and_sounds(tmp_path: Path, capsys, name: str, options: list[str], suffix: str) -> None:
    model = saved(name, tmp_path / "model")
    arguments = ["--model", str(model), "--out", str(tmp_path / "out"), "--prompt", "a", "--steps", "2"]
    assert main([*arguments, *(part for option in options for part in ("--set", option))]) == 0
    made, sheet = sorted((tmp_path / "out").iterdir())
    assert [made.suffix, sheet.name] == [suffix, "sheet.png"]
    if suffix == ".wav":
        with wave.open(str(made)) as file:
            assert (file.getframerate(), file.getnframes()) == (16, 64)
    else:
        with Image.open(made) as file:
            assert (file.n_frames, file.size) == (5, (16, 16))  # type: ignore[attr-defined]
