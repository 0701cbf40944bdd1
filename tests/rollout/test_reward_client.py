"""Reward actors with environments of their own: what is in them is never imported here."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

from sdo_ray.config.align import AlignSettings
from sdo_ray.config.align_checks import check_align
from sdo_ray.config.loading import load_settings
from sdo_ray.rollout.reward_client import RewardClient, reward_specs, start_reward_actors
from sdo_ray.rollout.reward_settings import RewardActorSettings, RewardSettings
from sdo_ray.settings import SettingsError
from tests.support.runs import tiny_settings

PLAIN = '''
import own_packages


class Brightness:
    """How bright the images are."""

    differentiable = True

    def __init__(self, *, gain: float = 1.0) -> None:
        self.gain = gain

    def __call__(self, images, prompts):
        return self.gain * own_packages.mean(images)
'''
"""Its source says all there is to say."""

UNCLEAR = '''
import own_packages


class Watched(own_packages.Base):
    """What it is, its base says."""

    def __init__(self, *, gain: float = 1.0) -> None:
        if gain <= 0:
            raise ValueError(f"gain must be positive, got {gain}")


class Evaluator(Watched):
    differentiable = True
    heldout = True


class OfBatches(Watched):
    differentiable = batchwise = True
'''
"""Whether these have gradients is known where their packages are."""

PACKAGES = """
import os

if os.environ["WHERE"] != "in the actor":
    raise ImportError("these packages are for the actor alone")


def mean(images):
    return images.mean((1, 2, 3))


class Base:
    differentiable = False

    def __call__(self, images, prompts):
        return mean(images)
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init("local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(autouse=True)
def never_here(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("WHERE", "on the driver")
    yield
    assert not {"own_reward", "unclear_reward", "own_packages"} & sys.modules.keys()


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Modules that can be imported only with it."""
    folder = tmp_path_factory.mktemp("elsewhere")
    for name, source in {"own_reward": PLAIN, "unclear_reward": UNCLEAR, "own_packages": PACKAGES}.items():
        (folder / f"{name}.py").write_text(source)
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    return {"env_vars": {"PYTHONPATH": path, "WHERE": "in the actor"}}


def learned(name: str, environment: dict[str, Any], **changes: Any) -> RewardSettings:
    return RewardSettings(name=name, runtime_env=environment, num_cpus=0.5, **changes)


def test_a_reward_that_the_driver_cannot_import_scores(
    cluster: None, environment: dict[str, Any], tiny_base: Path, tmp_path: Path
) -> None:
    term = {"name": "own_reward:Brightness", "options": {"gain": 2.0}, "runtime_env": environment, "num_cpus": 0.5}
    settings = load_settings(AlignSettings, tiny_settings(tmp_path, tiny_base, rewards={"terms": [term]}))
    check_align(settings)
    actors = start_reward_actors(settings.rewards.terms)
    images = torch.rand(2, 3, 4, 4)
    handles: dict[str, Any] = {}
    client = RewardClient(handles, ["own_reward:Brightness"])
    handles |= actors  # which an actor that may start anew is given with each call
    scores, gradients = client(images, ["a", "b"])
    torch.testing.assert_close(scores["own_reward:Brightness"], 2 * images.mean((1, 2, 3)))
    torch.testing.assert_close(gradients["own_reward:Brightness"], torch.full((2, 3, 4, 4), 2 / 48))
    [spec] = reward_specs(actors).values()
    assert (spec.about, spec.heldout) == ("How bright the images are.", False)


@pytest.mark.parametrize(
    ("term", "said"),
    [
        ({"name": "own_reward:Brightness", "options": {"gian": 2.0}}, "has no option 'gian'; it has gain"),
        ({"name": "own_reward:Brightness", "options": {"gain": "much"}}, "must be float, got 'much'"),
        ({"name": "nothing", "options": {}}, "there is no reward 'nothing'"),
    ],
)
def test_what_the_source_says_is_refused_before_anything_starts(
    environment: dict[str, Any], tiny_base: Path, tmp_path: Path, term: dict[str, Any], said: str
) -> None:
    terms = {"terms": [term | {"runtime_env": environment}]}
    settings = load_settings(AlignSettings, tiny_settings(tmp_path, tiny_base, rewards=terms))
    with pytest.raises(SettingsError, match=said) as refused:
        check_align(settings)
    assert repr(term["name"]) in str(refused.value)


def test_what_only_the_actors_know_is_refused_at_their_start_all_at_once(
    cluster: None, environment: dict[str, Any]
) -> None:
    rewards = [
        learned("unclear_reward:Watched", environment),
        learned("unclear_reward:Evaluator", environment),
        learned("own_reward:Nothing", environment),
        RewardActorSettings(name="unclear_reward:OfBatches", runtime_env=environment, num_cpus=0.5),
    ]
    for reward in rewards:
        reward.check()
    with pytest.raises(SettingsError) as refused:
        start_reward_actors(rewards)
    said = [str(problem) for problem in refused.value.problems]
    problems = dict(zip([reward.name for reward in rewards], said, strict=True))
    assert "has weight 1.0 but no gradient" in problems["unclear_reward:Watched"]
    assert "held out for evaluation and has weight 1.0" in problems["unclear_reward:Evaluator"]
    assert "has no 'Nothing'; its classes are Brightness" in problems["own_reward:Nothing"]
    assert "scores batches as a whole" in problems["unclear_reward:OfBatches"]
    assert all(repr(name) in problem for name, problem in problems.items())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"gain": -1.0}, "ValueError: gain must be positive, got -1.0"),
        ({"gian": 1.0}, "RewardError: reward 'unclear_reward:Watched' has no option 'gian'; it has gain"),
    ],
)
def test_options_that_only_the_actor_can_check(
    cluster: None, environment: dict[str, Any], options: dict[str, Any], said: str
) -> None:
    reward = learned("unclear_reward:Watched", environment, weight=0.0, options=options)
    reward.check()
    with pytest.raises(SettingsError, match="reward 'unclear_reward:Watched' could not start") as refused:
        start_reward_actors([reward])
    assert said in str(refused.value)


def test_without_an_environment_of_its_own_it_is_imported_and_the_error_says_both_ways_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needs_more_here.py").write_text("import packages_that_are_nowhere")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"No module named 'packages_that_are_nowhere'; install .*`runtime_env`"):
        RewardSettings(name="needs_more_here:Reward").check()


def test_options_of_old_settings_go_by_their_names_now() -> None:
    old = RewardActorSettings.model_validate({"name": "gram_style", "options": {"picture": "a.png"}})
    assert old == RewardActorSettings(name="gram_style", options={"image": "a.png"})
    with pytest.raises(ValueError, match="picture and image are one option"):
        RewardActorSettings(name="gram_style", options={"picture": "a.png", "image": "b.png"})
