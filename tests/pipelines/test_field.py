"""What people reported of other tools, done with `sdo check`: right, or one line that says what to do.

A process of its own, in a directory of its own, would take seconds for each; `tests/wheel` has some of them.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from pipelines.check import main
from sdo_ray.models.load import load_pipeline
from tests.backprop.matrix.assemble import assemble
from tests.backprop.matrix.cases import CASES
from tests.backprop.test_bypass import safety_checker
from tests.support.samples import saved
from tests.wheel.test_models import processor

REWARDS = """
import torch

class Mean:
    differentiable = True
    def __call__(self, images, prompts):
        return images.mean((1, 2, 3))

class Half:
    differentiable = True
    def __init__(self):
        self.network = torch.nn.Conv2d(3, 1, 3).half()
    def __call__(self, images, prompts):
        return self.network(images).mean((1, 2, 3))
"""

Check = Callable[..., str]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stable Diffusion as it is, with a safety checker that finds all images to be unsafe, and others."""
    directory = tmp_path_factory.mktemp("models")
    checked = CASES["StableDiffusion"].parts | {"safety_checker": safety_checker, "feature_extractor": processor}
    saved("StableDiffusion", directory / "sd")
    assemble("StableDiffusionPipeline", checked).save_pretrained(directory / "checked")
    saved("StableDiffusionXL", directory / "sdxl")
    saved("StableDiffusionInpaint", directory / "inpaint")
    broken = load_pipeline(str(directory / "sd"))
    next(broken.unet.parameters()).data.fill_(torch.nan)
    broken.save_pretrained(directory / "broken")
    return directory


@pytest.fixture
def check(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Iterator[Check]:
    """Runs it on a model; returns all that it said."""
    monkeypatch.chdir(tmp_path)
    for variable in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(variable, raising=False)
    (tmp_path / "my_rewards.py").write_text(REWARDS)
    for file in ("lora/pytorch_lora_weights.safetensors", "run/adapter/pytorch_lora_weights.safetensors"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).touch()
    (tmp_path / "whole/model").mkdir(parents=True)
    (tmp_path / "whole/model/model_index.json").touch()
    for file, words in (("train", "cat dog cow fox"), ("heldout", "owl bee ant elk")):
        (tmp_path / f"{file}.txt").write_text("\n".join(f"a {word}" for word in words.split()))

    def run(model: str, *changes: str, code: int = 2) -> str:
        settings = {
            "run": {"name": "tiny"},
            "model": {"base": str(models / model), "lora": {"rank": 2, "alpha": 2.0}},
            "prompts": {"train": "train.txt"},
            "sampling": {"num_inference_steps": 4, "options": {"height": 32, "width": 32}},
            "rewards": {"terms": [{"name": "my_rewards:Mean"}]},
            "samplers": {"batch_size": 2},
            "training": {"updates": 1, "batch_size": 2},
            "evaluation": {
                "prompts": "heldout.txt",
                "num_prompts": 4,
                "evaluators": [{"name": "heldout_preference"}],
            },
        }
        (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings))
        assert main(["settings.yaml", *(part for change in changes for part in ("--set", change))]) == code
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        assert "traceback" not in said.out + said.err
        return str(said.out + said.err)

    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        yield run
    import sys

    sys.modules.pop("my_rewards", None)


def test_a_safety_checker_that_objects_to_everything(check: Check) -> None:
    """To the images of a tiny batch a real one may well."""
    assert "learns without the model's safety_checker" in check("checked", code=0)


REFUSED = {
    "a model whose weights are NaN": (
        ("broken",),
        "model.dtype: what the model makes is not finite in a first tiny batch; choose float32",
    ),
    "a variant that is not there": (
        ("sd", "model.variant=fp16"),
        "model.variant: got 'fp16', and no weights of ",
    ),
    "images that are not given": (
        ("inpaint",),
        "if it needs image and mask_image, `prompts.inputs: {image: COLUMN}` gives each prompt its own",
    ),
    "a network in half precision": (
        ("sd", "rewards.terms=[{name: 'my_rewards:Half'}]"),
        "reward Half is given float32 images, and its network is of another type",
    ),
    "half a size": (
        ("sd", "sampling.options={height: 64}"),
        "sampling.options.height: given alone, and a StableDiffusionPipeline then takes its own size for both",
    ),
    "a text for a size": (
        ("sd", "sampling.options={height: '64', width: 64}"),
        "sampling.options.height: got '64' (str); it is a whole number from 1 on",
    ),
    "a broken size": (("sd", "sampling.options={height: 64, width: 64.5}"), "sampling.options.width: got 64.5 (float)"),
    "a negative size": (("sd", "sampling.options={height: -8, width: 64}"), "sampling.options.height: got -8 (int)"),
    "a file of code for a reward": (
        ("sd", "rewards.terms=[{name: './my_rewards.py:Mean'}]"),
        "rewards.terms.0.name: reward './my_rewards.py:Mean' names a file, and modules are named; give 'my_rewards:Me",
    ),
    "what Ray would pass over": (
        ("sd", "rewards.terms.0.runtime_env={pips: [a]}"),
        "rewards.terms.0.runtime_env: got pips, which Ray would pass over; it has conda, ",
    ),
    "a LoRA for a model": (
        ("sd", "model.base=lora"),
        "it has an adapter: give the model that it is for, or `sdo compose --model BASE --adapter lora --out DIR`",
    ),
    "a run for a model": (("sd", "model.base=run"), "or `sdo compose --model BASE --adapter run/adapter --out DIR`"),
    "a run that trained all weights for a model": (
        ("sd", "model.base=whole"),
        "has no model_index.json; give whole",
    ),
    "a web page": (
        ("sd", "prompts.train='https://127.0.0.1:9/prompts.csv'"),
        "cannot be read as csv: Unrecognized filesystem type in URI: https://127.0.0.1:9/prompts.csv; correct it",
    ),
}


@pytest.mark.parametrize(("given", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(check: Check, given: tuple[str, ...], said: str) -> None:
    assert said in check(*given)


@pytest.mark.parametrize(
    "options",
    ["prompt_2: on a table", "original_size: [64, 64], target_size: [32, 32], crops_coords_top_left: [0, 8]"],
)
def test_arguments_of_sdxl_that_settings_have_no_types_for(check: Check, options: str) -> None:
    """A text for all images, and pairs."""
    check("sdxl", f"sampling.options={{height: 32, width: 32, {options}}}", code=0)


def test_half_a_size_where_the_other_half_is_the_models(check: Check) -> None:
    check("sdxl", "sampling.options={height: 32}", code=0)
