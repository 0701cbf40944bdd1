"""`sdo compose`: what it writes draws as plain diffusers does with the parts, and what does not fit is refused."""

from pathlib import Path

import diffusers
import pytest
import safetensors.torch
import torch
from diffusers import StableDiffusionPipeline

from pipelines.compose import main
from sdo_ray.models.load import load_pipeline
from sdo_ray.models.trained.lora import save_lora
from tests.backprop.matrix.parts import part
from tests.models.adapters import LORA, trained_weights
from tests.support.single_file import checkpoint


def draw(pipeline: StableDiffusionPipeline, prompt: str = "a") -> torch.Tensor:
    pipeline.set_progress_bar_config(disable=True)
    with torch.no_grad():
        noise = torch.Generator().manual_seed(0)
        return pipeline(prompt, generator=noise, num_inference_steps=3, guidance_scale=2.0, output_type="pt").images


@pytest.fixture
def plain(tiny_base: Path) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(tiny_base, safety_checker=None)


def test_adapters_are_in_the_weights_as_many_times_as_said(tiny_base: Path, tmp_path: Path, plain, capsys) -> None:
    files = [save_lora(str(tiny_base), LORA, trained_weights(tiny_base, LORA, i), tmp_path / str(i)) for i in (1, 2)]
    added = [f"--adapter={files[0]}=0.5", f"--adapter={files[1].parent}"]
    assert main(["--model", str(tiny_base), "--out", str(tmp_path / "out"), *added]) == 0
    assert "0.5 times, is in the weights" in capsys.readouterr().out
    for number, file in enumerate(files):
        plain.load_lora_weights(file.parent, adapter_name=f"n{number}")
    plain.set_adapters(["n0", "n1"], [0.5, 1.0])
    composed = load_pipeline(str(tmp_path / "out"))
    assert not any("lora" in name for name, _ in composed.unet.named_parameters())
    torch.testing.assert_close(draw(composed), draw(plain), atol=1e-4, rtol=0)


def test_another_scheduler_with_options_and_another_autoencoder(tiny_base: Path, tmp_path: Path, plain) -> None:
    torch.manual_seed(5)
    vae = part("AutoencoderKL", **{k: v for k, v in plain.vae.config.items() if not k.startswith("_")})
    vae.save_pretrained(tmp_path / "vae")
    parts = ["--scheduler=DPMSolverMultistepScheduler", "--set=use_karras_sigmas=true", f"--vae={tmp_path / 'vae'}"]
    assert main(["--model", str(tiny_base), "--out", str(tmp_path / "out"), *parts]) == 0
    kind = diffusers.DPMSolverMultistepScheduler
    plain.scheduler = kind.from_config(plain.scheduler.config, use_karras_sigmas=True)
    plain.vae = diffusers.AutoencoderKL.from_pretrained(tmp_path / "vae")
    assert torch.equal(draw(load_pipeline(str(tmp_path / "out"))), draw(plain))


def test_a_learned_word_is_one_in_prompts(tiny_base: Path, tmp_path: Path, plain, capsys) -> None:
    width = plain.text_encoder.get_input_embeddings().weight.shape[1]
    safetensors.torch.save_file({"emb_params": torch.randn(2, width)}, tmp_path / "moss.safetensors")
    added = [f"--embedding={tmp_path / 'moss.safetensors'}=<moss>"]
    assert main(["--model", str(tiny_base), "--out", str(tmp_path / "out"), *added]) == 0
    assert "prompts may have the word '<moss>'" in capsys.readouterr().out
    before = draw(plain, "a <moss>")
    plain.load_textual_inversion(str(tmp_path / "moss.safetensors"), token="<moss>")
    after = draw(plain, "a <moss>")
    assert not torch.equal(before, after)
    torch.testing.assert_close(draw(load_pipeline(str(tmp_path / "out")), "a <moss>"), after)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--adapter=nothing.safetensors"], "--adapter: 'nothing.safetensors' has no pytorch_lora_weights"),
        (["--adapter=x=heavy"], "--adapter: its weight is 'heavy'; it is a number"),
        (["--scheduler=DimScheduler"], "--scheduler: diffusers has no scheduler 'DimScheduler'; in place of"),
        (["--set=spacing=trailing"], "--set: DDIMScheduler has no spacing; it has num_train_timesteps"),
        (["--vae=./nowhere/at/all"], "--vae: "),
        (["--embedding=style.pt"], "--embedding: 'style.pt' is no .safetensors file here"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    tiny_base: Path, tmp_path: Path, capsys, given: list[str], said: str
) -> None:
    assert main(["--model", str(tiny_base), "--out", str(tmp_path / "out"), *given]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_directory_with_something_in_it_is_left_alone(tiny_base: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "file").touch()
    assert main(["--model", str(tiny_base), "--out", str(tmp_path)]) == 2
    assert "is there, and not empty" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main(["--model", str(tiny_base), "--out", str(tmp_path / "file")]) == 2
    assert "--out: " in capsys.readouterr().err


def test_a_checkpoint_in_one_file_is_taken(tiny_base: Path, tmp_path: Path, plain) -> None:
    draws = torch.Generator().manual_seed(3)
    for network in (plain.unet, plain.vae, plain.text_encoder):
        for weight in network.parameters():
            weight.data += 0.02 * torch.randn(weight.shape, generator=draws)
    safetensors.torch.save_file(checkpoint(plain), tmp_path / "other.safetensors")
    added = ["--single-file", str(tmp_path / "other.safetensors")]
    assert main(["--model", str(tiny_base), "--out", str(tmp_path / "out"), *added]) == 0
    torch.testing.assert_close(draw(load_pipeline(str(tmp_path / "out"))), draw(plain), atol=1e-5, rtol=0)


def test_a_file_that_is_no_checkpoint_of_the_architecture_is_refused(tiny_base: Path, tmp_path: Path, capsys) -> None:
    safetensors.torch.save_file({"model.diffusion_model.x": torch.ones(1)}, tmp_path / "other.safetensors")
    added = ["--single-file", str(tmp_path / "other.safetensors")]
    assert main(["--model", str(tiny_base), "--out", str(tmp_path / "out"), *added]) == 2
    assert "--single-file: " in capsys.readouterr().err
