"""Rewards as Ray actors that die, hang and raise, on a real cluster; the rules themselves are in test_replicas.py."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

from rewards.scoring import RewardMistake
from sdo_ray.rollout.replica import RewardFailed
from sdo_ray.rollout.reward_client import RewardClient, start_reward_actors
from sdo_ray.rollout.reward_pool import health_of, pools
from sdo_ray.rollout.reward_settings import RewardSettings
from sdo_ray.settings import SettingsError

ILL = "tests.support.ill_rewards:Ill"
LISTER = "tests.support.ill_rewards:Lister"
IMAGES = torch.rand(2, 3, 4, 4)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init("local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def reward(name: str = ILL, **changes: Any) -> RewardSettings:
    return RewardSettings(name=name, num_cpus=0.1, **changes)


def test_a_batch_that_kills_hangs_or_raises_and_others_that_do_not(cluster: None, tmp_path: Path) -> None:
    options = {"folder": str(tmp_path)}
    handles = start_reward_actors([reward(timeout=2.0, options=options), reward(LISTER)])
    client = RewardClient({ILL: handles[ILL]}, [ILL])
    with pytest.raises(OSError, match="no answer from the server"):
        client(IMAGES, ["a", "raise"])
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(RewardFailed) as died:
        client(IMAGES, ["a", "die"])
    assert died.value.line == (
        f"reward {ILL!r} died while it scored, 3 times at the same batch, at the prompts 'a', 'die'"
    )
    with pytest.raises(RewardMistake, match="Lister must return a tensor"):
        RewardClient({LISTER: handles[LISTER]}, [LISTER])(IMAGES, ["a", "b"])
    # It is back, and the same call again is the same.
    scores, gradients = client(IMAGES, ["a", "b"])
    assert torch.equal(scores[ILL], IMAGES.mean((1, 2, 3)))
    assert torch.equal(gradients[ILL], torch.full_like(IMAGES, 1 / 48))
    assert len(list(tmp_path.iterdir())) == 4
    # A call that hangs: another takes its place, and says so meanwhile.
    pool = handles[ILL].pool
    hangs = handles[ILL].score(ray.put(IMAGES.numpy()), tuple(IMAGES.shape), {ILL: ["a", "hang"]}, {ILL: False}, [])
    time.sleep(1)
    [waited_for] = ray.get(pool.waiting.remote())
    assert waited_for == f"reward {ILL} to score 2 images ('a', 'hang')"
    with pytest.raises(RewardFailed) as hung:
        ray.get(hangs, timeout=60)
    assert (
        hung.value.line == f"reward {ILL!r} did not answer within 2 seconds; 3 restarts within 10 minutes did not help"
    )
    news = ray.get(pool.news.remote())
    assert news == [f"reward {ILL!r} died while it scored; restart {n} of 3 within 10 minutes" for n in (1, 2, 3)]
    assert ray.get(pool.news.remote()) == []
    health = health_of(pools(handles))
    assert health[ILL]["restarts"] == 3
    assert 0 < health[ILL]["seconds"] < 2
    assert health_of([pool])[ILL] == {"restarts": 3}  # nothing was scored since


@pytest.mark.slow
def test_rewards_that_do_not_start_are_named_all_at_once(cluster: None) -> None:
    class Named(RewardSettings):
        """One reward under several names."""

        label: str

        @property
        def key(self) -> str:
            return self.label

    ill = [
        Named(
            name=ILL,
            label=what,
            num_cpus=0.1,
            options={"at_start": what},
            start_timeout=8.0 if what == "hang" else 60.0,
            max_restarts=1,
        )
        for what in ("die", "hang", "raise")
    ]
    with pytest.raises(SettingsError) as refused:
        start_reward_actors(ill)
    assert sorted(map(str, refused.value.problems)) == [
        "reward 'die' died at its start; 1 restart within 10 minutes did not help.",
        "reward 'hang' did not start within 8 seconds.",
        "reward 'raise' could not start: OSError: no answer from the server.",
    ]


def test_what_waits_is_merged_and_a_pool_that_dies_starts_anew_and_is_asked_again(cluster: None) -> None:
    handle = start_reward_actors([reward(batch_size=8)])[ILL]
    images = [torch.rand(2, 3, 4, 4) for _ in range(3)]

    def ask(number: int) -> Any:
        return handle.score(
            ray.put(images[number].numpy()), tuple(IMAGES.shape), {ILL: ["sleep0.5", "a"]}, {ILL: True}, []
        )

    def check(answer: Any, number: int) -> None:
        scores, gradient = ray.get(ray.get(answer, timeout=60)[0])
        assert torch.equal(torch.tensor(scores), images[number].mean((1, 2, 3)))
        assert torch.equal(torch.tensor(gradient), torch.full_like(IMAGES, 1 / 48))

    asked = [ask(number) for number in range(3)]
    time.sleep(0.3)
    assert len(ray.get(handle.pool.waiting.remote())) == 1  # the first; the others are made of it as one
    for number, answer in enumerate(asked):
        check(answer, number)
    again = ask(1)
    time.sleep(0.2)
    ray.kill(handle.pool, no_restart=False)
    check(again, 1)
