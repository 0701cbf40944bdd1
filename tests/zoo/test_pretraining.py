"""Pretraining on six tiny images: it hands on a stock pipeline, and a stopped run equals the unbroken one."""

import re

import pytest
import torch
import yaml
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from pipelines.pretrain import main
from sdo_ray.zoo.captioned import read_captioned
from sdo_ray.zoo.denoiser import denoising_loss, make_scheduler
from sdo_ray.zoo.fitting import batch_rows, learning_rate
from sdo_ray.zoo.pretraining import pretrain
from sdo_ray.zoo.settings import DataSettings, FitSettings, PretrainSettings


@pytest.fixture
def tree(parquet, tmp_path):
    fit = {"updates": 4, "batch_size": 4, "warmup": 1, "save_every": 2, "log_every": 1}
    return {
        "output": str(tmp_path / "run"),
        "data": {"path": str(parquet), "image": "picture", "caption": "texts", "size": 16},
        "autoencoder": fit | {"channels": [8, 8], "lr": 1e-3},
        "unet": fit | {"channels": [16, 16], "heads": 2},
        "sheet": {"prompts": ["red", "blue"], "seeds": 1, "steps": 2},
    }


def settings(tree):
    return PretrainSettings.model_validate(tree)


def weights(directory):
    return {part: load_file(directory / part / "diffusion_pytorch_model.safetensors") for part in ("unet", "vae")}


def test_the_command_writes_a_pipeline_that_plain_diffusers_loads(tree, tmp_path, capsys):
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(tree))
    assert main([str(config), "--set", "unet.updates=2", "--set", "data.caption=text"]) == 0
    out = capsys.readouterr().out
    assert "update 4 of 4" in out
    assert "update 2 of 2" in out
    pipe = StableDiffusionPipeline.from_pretrained(tmp_path / "run" / "pipeline")
    pipe.set_progress_bar_config(disable=True)
    image = pipe("red", num_inference_steps=2, output_type="pt").images
    assert image.shape == (1, 3, 16, 16)
    assert torch.isfinite(image).all()
    latents = pipe.vae.encode(torch.zeros(1, 3, 16, 16)).latent_dist.mean
    assert latents.shape == (1, 4, 8, 8)
    assert (tmp_path / "run" / "unet" / "sheet-00000002.png").exists()


@pytest.mark.parametrize("stop", ["autoencoder/sheet-00000002", "unet/sheet-00000002"])
def test_a_stopped_run_equals_the_unbroken_one_to_the_bit(tree, tmp_path, stop):
    class Stop(Exception):
        pass

    stage = stop.split("/")[0]

    def killed(line):
        # One update past the state, whose work the second run has to redo.
        if line.startswith("update 3 of 4") and (tmp_path / "broken" / f"{stop}.png").exists():
            assert (tmp_path / "broken" / stage / "state-00000002").exists()
            raise Stop

    unbroken = pretrain(settings(tree | {"output": str(tmp_path / "unbroken")}), lambda line: None)
    broken = settings(tree | {"output": str(tmp_path / "broken")})
    with pytest.raises(Stop):
        pretrain(broken, killed)
    lines = []
    continued = pretrain(broken, lines.append)
    assert any("continues after update 2 of 4" in line for line in lines)
    for part, tensors in weights(unbroken).items():
        for name, tensor in weights(continued)[part].items():
            assert torch.equal(tensor, tensors[name]), (part, name)


def test_other_settings_in_the_same_directory_are_refused(tree):
    pretrain(settings(tree | {"unet": tree["unet"] | {"updates": 0}}), lambda line: None)
    with pytest.raises(ValueError, match=r"other settings.*unet.*'updates': 0.*'updates': 4"):
        pretrain(settings(tree), lambda line: None)


def test_a_part_can_be_started_from_and_handed_on_as_it_is(tree, tmp_path):
    first = pretrain(settings(tree), lambda line: None)
    given = {part: {"init_from": str(first / part), "updates": 0} for part in ("unet", "vae")}
    again = tree | {"output": str(tmp_path / "again"), "autoencoder": given["vae"], "unet": given["unet"]}
    second = pretrain(settings(again), lambda line: None)
    for part, tensors in weights(first).items():
        for name, tensor in weights(second)[part].items():
            assert torch.equal(tensor, tensors[name]), (part, name)


def test_a_unet_for_other_latents_is_refused(tree, tmp_path):
    first = pretrain(settings(tree | {"unet": tree["unet"] | {"updates": 0}}), lambda line: None)
    wrong = tree | {
        "output": str(tmp_path / "wrong"),
        "autoencoder": tree["autoencoder"] | {"updates": 0, "latent_channels": 2},
        "unet": tree["unet"] | {"init_from": str(first / "unet")},
    }
    with pytest.raises(ValueError, match=r"unet\.init_from.*\(4, 8, 384\).*need \(2, 8, 384\)"):
        pretrain(settings(wrong), lambda line: None)


def test_images_lie_on_white_and_captions_may_be_one_or_many(parquet):
    data = read_captioned(DataSettings(path=str(parquet), image="picture", caption="text", size=8))
    assert data.images.shape == (6, 3, 8, 8)
    assert data.images.dtype == torch.uint8
    assert data.images[0].float().mean(dim=(1, 2)).tolist() == [255, 0, 0]
    assert (data.images[5] == 255).all()
    assert data.captions[0] == ("red",)
    assert read_captioned(DataSettings(path=str(parquet), image="picture", caption="texts", size=8)).captions[0] == (
        "red",
        "a red square",
    )


def test_the_loss_is_the_mean_squared_error_where_the_ratio_is_low_and_weighted_down_where_it_is_high():
    abar = make_scheduler().alphas_cumprod
    z, noise = torch.zeros(2, 4, 8, 8), torch.ones(2, 4, 8, 8)

    class Zero(torch.nn.Module):
        def forward(self, sample, t, c):
            return type("Output", (), {"sample": torch.zeros_like(sample)})

    high, low = torch.tensor([0, 0]), torch.tensor([999, 999])
    snr = abar[0] / (1 - abar[0])
    torch.testing.assert_close(denoising_loss(Zero(), z, noise, low, noise, abar, 5.0), torch.tensor(1.0))
    torch.testing.assert_close(denoising_loss(Zero(), z, noise, high, noise, abar, 5.0), 5.0 / snr)


def test_every_row_is_seen_once_in_each_pass():
    seen = torch.cat([batch_rows(3, update, 10, 4) for update in range(5)])
    assert sorted(seen[:10].tolist()) == list(range(10))
    assert sorted(seen[10:].tolist()) == list(range(10))
    assert not torch.equal(seen[:10], seen[10:])


def test_the_learning_rate_warms_up_and_ends_near_zero():
    fit = FitSettings(updates=100, lr=1.0, warmup=9)
    assert learning_rate(fit, 0) == pytest.approx(0.1)
    assert learning_rate(fit, 50) == pytest.approx(0.5)
    assert learning_rate(fit, 99) < 1e-3


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("unet.lr=0", r"unet\.lr: got 0 .*greater than 0"),
        ("unet.ema=1.0", r"unet\.ema: got 1\.0 .*less than 1"),
        ("unet.channels=[16, 20]", r"unet\.channels: got \[16, 20\] .*positive multiples of 16"),
        ("unet.heads=3", r"unet: .*heads 3 does not divide all channels \[16, 16\]"),
        ("unet.updates=many", r"unet\.updates: got 'many' \(str\)"),
        ("unet.rate=1", r"unet\.rate: unknown setting; there are updates, batch_size"),
        ("autoencoder.channels=[9]", r"autoencoder\.channels: got \[9\] .*positive multiples of 8"),
        ("data.size=12", r"data\.size: got 12 .*multiple of 8"),
        ("unet.channels=[16, 16, 16, 16, 16]", r"data\.size 16 cannot be halved .*multiple of 32"),
        ("sheet.prompts=red", r"sheet\.prompts: got 'red' .*list"),
        ("device=tpu", r"device: got 'tpu'"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_legal(tree, tmp_path, capsys, setting, message):
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(tree))
    assert main([str(config), "--set", setting]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_a_missing_column_is_named_with_those_that_exist(parquet):
    with pytest.raises(ValueError, match=r"data\.caption: got 'label'; .* has the columns picture, texts, text"):
        read_captioned(DataSettings(path=str(parquet), image="picture", caption="label"))


def test_the_command_says_what_is_wrong_and_fails(tmp_path, capsys):
    assert main([str(tmp_path / "none.yaml")]) == 2
    assert "there is no file" in capsys.readouterr().err
