"""One tiny batch before a cluster: what would make batches fail is said by its setting, and nothing else is refused."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from diffusers import DiffusionPipeline

from sdo_ray.config.align import AlignSettings
from sdo_ray.config.loading import load_settings
from sdo_ray.dry_batch.batch import check_by_dry_batch, dry_batch
from sdo_ray.models import small
from sdo_ray.settings import SettingsError
from tests.support.runs import tiny_settings
from tests.support.samples import saved

Try = Callable[..., str | None]


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            made[name] = saved(name, tmp_path_factory.mktemp(name))
        return made[name]

    return get


@pytest.fixture
def attempt(tiny_base: Path, tmp_path: Path) -> Try:
    """A dry batch in this process, of settings changed."""

    def run(*overrides: str, base: Path = tiny_base, **sections: Any) -> str | None:
        path = tiny_settings(tmp_path, base, model={"lora": {"rank": 2, "alpha": 2.0}}, **sections)
        return dry_batch(load_settings(AlignSettings, path, overrides))

    return run


def refused(attempt: Try, *overrides: str, base: Path | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        attempt(*overrides, **({} if base is None else {"base": base}))
    return str(caught.value)


class Wrong:
    """A reward that returns what `what` names."""

    differentiable = True

    def __init__(self, what: str) -> None:
        self.what = what

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> Any:
        scores = images.mean((1, 2, 3))
        match self.what:
            case "column":
                return scores[:, None]
            case "list":
                return scores.tolist()
            case "tuple":
                return scores, {}
            case "dict":
                return {"score": scores}
            case "no graph":
                return scores.detach()
            case "half":
                return torch.nn.Linear(3, 1).half()(images.mean((2, 3))).mean(1)
            case "flat":
                return 0 * scores
            case "not finite":
                return scores / 0
            case "exit":
                os._exit(139)
        raise KeyError(self.what)


def test_settings_that_work(attempt: Try) -> None:
    assert attempt() is None
    assert attempt("training.backward=trainer", "training.batch_size=8") is None
    assert attempt("plan={name: full}", "samplers.batch_size=1") is None
    assert attempt("sampling.options={negative_prompt: z, height: 24, width: 16}") is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("{num_images_per_prompt: 2}", "sampling.options.num_images_per_prompt: got 2"),
        ("{height: 100, width: 60}", "sampling.options.height: got 100"),
        ("{prompt_embeds: [1, 2]}", "sampling.options.prompt_embeds: got [1, 2]"),
        ("{callback_on_step_end: print}", "sampling.options.callback_on_step_end: got 'print'"),
        ("{negative_prompt: [z]}", "sampling.options.negative_prompt: got ['z']"),
        ("{timesteps: [900, 500, 100]}", "sampling.options.timesteps: got [900, 500, 100]"),
    ],
)
def test_options_that_cannot_work(attempt: Try, options: str, said: str) -> None:
    assert said in refused(attempt, f"sampling.options={options}")


def test_a_call_that_ends_early(attempt: Try, bases: Callable[[str], Path]) -> None:
    said = refused(attempt, "sampling.options={denoising_end: 0.8}", base=bases("StableDiffusionXL"))
    assert said.startswith("sampling.options.denoising_end: got 0.8")


def test_video_for_a_reward_of_images(attempt: Try, bases: Callable[[str], Path]) -> None:
    said = refused(attempt, base=bases("Wan"))
    assert said.startswith("rewards.terms.0: reward 'tests.support.ink:Ink' failed")
    assert "judges images [B, 3, H, W], and was given [2, 9, 3, 64, 64]" in said


@pytest.mark.slow
def test_an_autoencoder_that_takes_one_video_alone(attempt: Try, bases: Callable[[str], Path]) -> None:
    """HunyuanVideo 1.5's has an attention mask that fits no batch, unless it decodes in slices."""
    term = {"name": "tests.support.ink:Ink", "frames": {"take": 1}}
    rewards = f"rewards.terms=[{yaml.safe_dump(term, default_flow_style=True)}]"
    how = (
        rewards,
        "evaluation.evaluators=[{name: 'tests.support.ink:Ink', frames: {take: 1}}]",
        "sampling.guidance_scale=null",
    )
    base = bases("HunyuanVideo15")
    assert "doesn't match the broadcast shape" in refused(attempt, *how, "samplers.batch_size=2", base=base)
    assert attempt(*how, "samplers.batch_size=1", base=base) is None
    assert attempt(*how, "samplers.batch_size=2", "sampling.decode=slices", base=base) is None


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("column", "one score per image; it returned [2, 1]"),
        ("list", "one score per image; it returned a list"),
        ("tuple", "one score per image; it returned a tuple"),
        ("dict", "one score per image; it returned a dict"),
        ("no graph", "its scores carry no graph back to the images"),
        ("half", "is given float32 images, and its network is of another type"),
        ("flat", "rewards.terms.1: its gradient is exactly 0 on all images of a first tiny batch"),
        ("not finite", "Wrong' gives scores that are not finite, such as inf"),
    ],
)
def test_rewards_that_are_none(attempt: Try, what: str, said: str) -> None:
    reward = {"name": f"{__name__}:Wrong", "options": {"what": what}}
    text = refused(attempt, f"rewards.terms.1={yaml.safe_dump(reward, default_flow_style=True)}")
    assert text.startswith("rewards.terms")
    assert said in text


def test_one_reward_twice_with_other_options(attempt: Try) -> None:
    terms = "[{name: 'tests.support.ink:Ink', label: a}, {name: 'tests.support.ink:Ink', label: b, weight: -1.0}]"
    assert attempt(f"rewards.terms={terms}") is None


def test_an_evaluator_that_would_fail_at_the_end(attempt: Try) -> None:
    said = refused(attempt, "evaluation.evaluators.0.name=tests.support.ink:Broken")
    assert said.startswith("evaluation.evaluators.0: reward 'tests.support.ink:Broken' failed")


def test_one_that_kills_its_process(tiny_base: Path, tmp_path: Path) -> None:
    path = tiny_settings(tmp_path, tiny_base)
    term = f"rewards.terms.1={{name: '{__name__}:Wrong', options: {{what: exit}}}}"
    settings = load_settings(AlignSettings, path, [term])
    with pytest.raises(SettingsError, match=r"rewards\.terms\.1: a first tiny batch ended: .* exit code 139"):
        check_by_dry_batch(settings)
    check_by_dry_batch(load_settings(AlignSettings, path, [term, "training.dry_batch=false"]))
    check_by_dry_batch(load_settings(AlignSettings, path))


def test_a_large_video_model(attempt: Try, bases: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small, "LARGE", -1)
    assert "judges images [B, 3, H, W]" in refused(attempt, base=bases("Wan"))


@pytest.mark.parametrize("name", ["StableDiffusionXL", "StableDiffusion3", "Flux"])
def test_a_large_model_is_tried_by_a_small_one(
    attempt: Try, bases: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    base = bases(name)
    monkeypatch.setattr(small, "LARGE", -1)
    for weights in base.rglob("*.safetensors"):
        weights.unlink()
    assert attempt(base=base) is None
    assert "sampling.options.num_images" in refused(attempt, "sampling.options={num_images_per_prompt: 2}", base=base)


def test_a_vocabulary_with_two_names_counts_once(
    bases: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wan's encoder has 250,000 words, of which a stand-in with each of them twice would be too large."""
    base = bases("Wan")
    made = DiffusionPipeline.from_pretrained(base)
    words = made.text_encoder.shared.weight
    assert made.text_encoder.encoder.embed_tokens.weight is words
    size = sum(
        p.numel() for part in made.components.values() if isinstance(part, torch.nn.Module) for p in part.parameters()
    )
    monkeypatch.setattr(small, "MOST", size + words.numel() // 2)
    small.save_small(str(base), tmp_path / "small", heads=None)
    monkeypatch.setattr(small, "MOST", words.numel())
    with pytest.raises(ValueError, match="even with few layers a part it has"):
        small.save_small(str(base), tmp_path / "smaller", heads=None)
