"""A loop of one process: it learns, what it saves is what it drew with, and it goes on where it was."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from rewards.scoring import RewardMistake, score
from sdo_ray import Aligner
from sdo_ray.notebook.rewards import local_rewards
from sdo_ray.rollout import kept_graph
from sdo_ray.rollout.contribution import compute_contribution
from sdo_ray.rollout.records import PromptBatch
from sdo_ray.settings import SettingsError
from tests.support.ink import Ink

PROMPTS = list("abcdefg")
SETTINGS = {
    "lora": {"rank": 2, "alpha": 4.0, "targets": ["to_q", "to_v", "conv1"]},
    "sampling": {"num_inference_steps": 4, "guidance_scale": 2.0},
    "training": {"batch_size": 4, "learning_rate": 0.02},
}


def dark(images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
    return -images.mean((1, 2, 3))


def aligner(base: Path, rewards: dict | None = None, **changes) -> Aligner:
    pipeline = StableDiffusionPipeline.from_pretrained(base, safety_checker=None)
    return Aligner(pipeline, rewards or {"dark": dark}, **({"images_at_once": 2} | SETTINGS | changes))


def test_the_reward_rises_and_plain_diffusers_draws_what_it_drew(tiny_base: Path, tmp_path: Path) -> None:
    one = aligner(tiny_base, training={"batch_size": 4, "learning_rate": 0.05})
    before = one.draw(["a"])
    updates = list(one.run(PROMPTS, 12))
    assert [update.number for update in updates] == list(range(12))
    assert all(update.num_samples == 4 and update.grad_norm > 0 for update in updates)
    assert one.save(tmp_path).name == "pytorch_lora_weights.safetensors"
    after = one.draw(["a"])
    assert np.asarray(after[0]).mean() < np.asarray(before[0]).mean() - 1
    with one.base_model():
        assert one.draw(["a"])[0].tobytes() == before[0].tobytes()
    plain = StableDiffusionPipeline.from_pretrained(tiny_base, safety_checker=None)
    plain.load_lora_weights(tmp_path)
    one.pipeline = plain
    assert one.draw(["a"])[0].tobytes() == after[0].tobytes()


def test_it_goes_on_to_the_bit_where_it_was_stopped(tiny_base: Path, tmp_path: Path) -> None:
    whole = aligner(tiny_base)
    list(whole.run(PROMPTS, 4))
    first = aligner(tiny_base)
    for update in first.run(PROMPTS, 4):
        if update.number == 1:
            break
    first.save_checkpoint(tmp_path / "some/state.safetensors")
    second = aligner(tiny_base)
    second.load_checkpoint(tmp_path / "some/state.safetensors")
    assert [update.number for update in second.run(PROMPTS, 4)] == [2, 3]
    assert all(torch.equal(tensor, whole.masters[name]) for name, tensor in second.masters.items())


def test_an_update_does_not_depend_on_how_many_are_sampled_at_once(tiny_base: Path) -> None:
    """With the kept step the same for all: it is drawn for each batch."""
    plan = {"name": "sdo", "options": {"draw": "fixed", "at": [2]}}
    one, other = (aligner(tiny_base, plan=plan, images_at_once=size) for size in (1, 4))
    [a], [b] = (list(each.run(PROMPTS, 1)) for each in (one, other))
    assert a.grad_norm == pytest.approx(b.grad_norm, rel=1e-4)
    assert a.reward == pytest.approx(b.reward, rel=1e-5)


def test_what_sampling_says_is_done(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How steps are made and latents decoded, and which activations a batch holds."""
    plan = {"name": "sdo", "options": {"draw": "fixed", "at": [2]}}
    four = SETTINGS["sampling"]
    exact, again, held, tiled = (
        aligner(tiny_base, plan=plan, sampling=four | more)
        for more in ({}, {"kept_graph": "recompute"}, {"cache": {"name": "taylor", "every": 2}}, {"decode": "tiles"})
    )
    assert tiled.pipeline.vae.use_tiling
    [expected], [same], [other] = (list(each.run(PROMPTS, 1)) for each in (exact, again, held))
    assert same.grad_norm == pytest.approx(expected.grad_norm, rel=1e-4)
    assert same.reward == expected.reward != other.reward
    monkeypatch.setattr(kept_graph, "_memory", lambda *_: 0.0)
    made = list[str]()

    def noted(*args: Any, kept_graph: str, **kwargs: Any) -> Any:
        made.append(kept_graph)
        return compute_contribution(*args, kept_graph=kept_graph, **kwargs)

    monkeypatch.setattr("sdo_ray.notebook.aligner.compute_contribution", noted)
    [short] = aligner(tiny_base, plan=plan, images_at_once=4).run(PROMPTS, 1)
    assert made == ["recompute"]
    assert short.grad_norm == pytest.approx(expected.grad_norm, rel=1e-4)


def test_rewards_are_weighed_and_some_only_watched(tiny_base: Path) -> None:
    both = aligner(tiny_base, {"dark": dark, "ink": Ink()}, weights={"dark": 2.0, "ink": 0.0})
    [update] = both.run(PROMPTS, 1)
    assert update.reward == pytest.approx(2 * update.scores["dark"])
    assert f"ink {update.scores['ink']:.4g}" in str(update)


def test_a_score_that_is_not_finite_is_skipped_and_an_update_without_any_makes_no_step(tiny_base: Path) -> None:
    def ill(images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        return dark(images, prompts) * torch.tensor([float("nan") if p == "a" else 1.0 for p in prompts])

    one = aligner(tiny_base, {"ill": ill})
    started = {name: tensor.clone() for name, tensor in one.masters.items()}
    update = one.update(PromptBatch(0, (0, 1), ("a", "a")))
    assert (update.num_samples, update.num_skipped, update.grad_norm) == (0, 2, 0.0)
    assert all(torch.equal(tensor, started[name]) for name, tensor in one.masters.items())
    update = one.update(PromptBatch(1, (2, 3), ("a", "b")))
    assert (update.num_samples, update.num_skipped) == (1, 1)
    assert any(not torch.equal(tensor, started[name]) for name, tensor in one.masters.items())


def test_a_checkpoint_of_another_lora_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    aligner(tiny_base).save_checkpoint(tmp_path / "state.safetensors")
    other = aligner(tiny_base, lora={"rank": 3})
    with pytest.raises(SettingsError, match="is no checkpoint of this LoRA"):
        other.load_checkpoint(tmp_path / "state.safetensors")
    with pytest.raises(SettingsError, match="cannot be read"):
        other.load_checkpoint(tmp_path / "nothing.safetensors")


@pytest.mark.parametrize(
    ("rewards", "changes", "said"),
    [
        ({"dark": dark}, {"sampling": {"steps": 4}}, "sampling.steps"),
        ({"dark": dark}, {"weights": {"bright": 1.0}}, "weights: got bright; the rewards are dark"),
        ({"dark": "alignmint"}, {}, "rewards.dark"),
        ({"dark": 3}, {}, "rewards.dark: int cannot be called"),
        ({"dark": dark}, {"lora": {"targets": ["to_z"]}}, "no linear or convolution layer of the unet ends with to_z"),
        (
            {"dark": dark},
            {"lora": {"init": "pissa"}},
            "lora.init: got 'pissa', which takes weights out of the pipeline",
        ),
        ({"dark": dark}, {"training": {"average": 0.9, "updates": 3}}, "training: .* average and updates are of runs"),
        ({"dark": dark}, {"sampling": {"decode": "frames"}}, "sampling.decode: got 'frames', which no autoencoder"),
    ],
)
def test_what_cannot_be_is_refused(tiny_base: Path, rewards: dict, changes: dict, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        aligner(tiny_base, rewards, **changes)


def test_a_pipeline_with_an_adapter_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    one = aligner(tiny_base)
    with pytest.raises(SettingsError, match="its unet has an adapter; fuse it"):
        Aligner(one.pipeline, {"dark": dark})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pipeline": "org/name"}, "pipeline: got a str; give what `DiffusionPipeline.from_pretrained"),
        ({"rewards": dark}, "rewards: got function; name at least one, such as"),
        ({"rewards": {}}, "rewards: got none; name at least one"),
        ({"images_at_once": 0}, "images_at_once: got 0; it is 1 or more"),
        ({"sampling": {"options": {"heigth": 8}}}, "sampling.options: StableDiffusionPipeline takes no heigth here"),
        ({"sampling": {"options": {"height": 8}}}, "sampling.options.height: given alone"),
    ],
)
def test_what_cannot_be_is_said_at_once(tiny_base: Path, changes: dict, said: str) -> None:
    """Stable Diffusion's call itself passes over names that it does not know."""
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_base, safety_checker=None)
    given = {"pipeline": pipeline, "rewards": {"dark": dark}} | changes
    with pytest.raises(SettingsError, match=said):
        Aligner(given.pop("pipeline"), given.pop("rewards"), **given)


def test_one_text_is_no_list_of_prompts(tiny_base: Path) -> None:
    with pytest.raises(SettingsError, match="prompts: got one text, whose letters would be prompts"):
        next(aligner(tiny_base).run("a cat", updates=1))


def test_a_mistake_is_said_of_the_reward_by_its_key() -> None:
    def pair(images: torch.Tensor, prompts: list[str]) -> Any:
        return dark(images, prompts), {}

    reward = local_rewards({"vivid": pair})["vivid"]
    with pytest.raises(RewardMistake, match="reward vivid must return a tensor"):
        score(reward, torch.zeros(1, 3, 8, 8), ["a"])
