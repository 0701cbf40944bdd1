"""Whether the rewards that settings name can be had, and learned from."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from rewards.modality import Made
from rewards.registry import RewardError, available, spec_of
from rewards.terms import check_terms
from sdo_ray.cluster import Demand
from sdo_ray.rollout.reward_settings import RewardActorSettings, RewardSettings, check_shares
from sdo_ray.settings import Problem, Problems, SettingsError

ANYTHING = Made()


def reward_demands(rewards: Sequence[RewardActorSettings], called: str = "reward") -> list[Demand]:
    """What their actors take; rewards that share one take it once."""
    groups: dict[str, list[RewardActorSettings]] = {}
    for reward in rewards:
        groups.setdefault(f"{called} {reward.key}" if reward.share is None else reward.share, []).append(reward)
    return [
        Demand(
            f"{called} {' and '.join(one.key for one in group)}", group[0].count, group[0].num_cpus, group[0].num_gpus
        )
        for group in groups.values()
    ]


def check_rewards(
    rewards: Sequence[RewardActorSettings],
    prompts: Sequence[Sequence[str]] = (),
    made: Made = ANYTHING,
) -> None:
    """Refuse rewards or options that there are not, or that cannot be used so, see `RewardActorSettings.check`.

    Args:
        rewards: as they were named.
        prompts: what each will be given, where that is known.
        made: what the model makes, see `RewardActorSettings.check_modality`.

    Raises:
        SettingsError: problems of their positions in the list.
    """
    with Problems() as problems:
        for number, reward in enumerate(rewards):
            try:
                _check_environment(reward.runtime_env)
                reward.check(prompts[number] if prompts else ())
                if (spec := spec_of(reward.name, reward.runtime_env)) is not None:
                    reward.check_modality(spec, made)
            except RewardError as error:
                problems.add(Problem(error.field, error.got, error.legal, error.fix).under(str(number)))
            except ValueError as error:
                problems.add(Problem(str(number), str(error)))
        try:
            check_shares(rewards)
        except ValueError as error:
            problems.add(Problem("", str(error)))


def _check_environment(given: Mapping[str, Any]) -> None:
    """Refuse what Ray would pass over."""
    if not given:
        return
    from ray.runtime_env import RuntimeEnv

    legal = RuntimeEnv.known_fields | {*inspect.signature(RuntimeEnv.__init__).parameters} - {"self", "kwargs"}
    known = sorted(name for name in legal if not name.startswith("_"))
    if unknown := sorted(given.keys() - legal):
        got = f"got {', '.join(unknown)}, which Ray would pass over"
        raise RewardError("runtime_env", got, f"it has {', '.join(known)}", "correct it")


def check_learned(rewards: Sequence[RewardSettings], black_boxes: bool = False) -> None:
    """Refuse rewards that cannot be learned from together.

    Args:
        rewards: that `check_rewards` finds nothing wrong with.
        black_boxes: whether rewards without a gradient can teach.

    Raises:
        SettingsError: why not.
    """
    try:
        check_terms([reward.term for reward in rewards])
    except ValueError as error:
        raise SettingsError(str(error)) from None
    with Problems() as problems:
        for number, reward in enumerate(rewards):
            spec = spec_of(reward.name, reward.runtime_env)
            try:
                if spec is not None and not black_boxes:
                    reward.check_gradient(spec)
            except ValueError as error:
                problems.add(Problem(str(number), str(error)))


def refuse_row_weights(rewards: Sequence[RewardSettings]) -> None:
    """Refuse `weigh_by`, of a command that does not weigh row by row.

    Raises:
        SettingsError: which rewards have it.
    """
    with Problems() as problems:
        for number, reward in enumerate(rewards):
            if reward.weigh_by is not None:
                got = f"got {reward.weigh_by!r}, and rows are weighed by `sdo align` alone"
                problems.add(Problem(f"{number}.weigh_by", got, fix="leave it out"))


def check_names(rewards: Sequence[RewardActorSettings]) -> None:
    """Refuse one that is named more than once.

    Raises:
        SettingsError: which ones.
    """
    names = [reward.key for reward in rewards]
    with Problems() as problems:
        for name in sorted({name for name in names if names.count(name) > 1}):
            problems.add(
                Problem("", f"{name!r} is named {names.count(name)} times", fix="name it once, or give each a label")
            )


def check_reward_names(settings: BaseModel) -> None:
    """Refuse names of no reward, wherever settings have them; an import path is of a module that may be elsewhere.

    Raises:
        SettingsError: which ones.
    """
    with Problems() as problems:
        for setting, name in _reward_names(settings, ""):
            if ":" not in name and name not in available():
                legal = f"there are {', '.join(available())}"
                problems.add(Problem(setting, f"there is no reward {name!r}", legal, "name one, or an import path"))


def _reward_names(value: Any, place: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, RewardActorSettings):
        yield place, value.name
    elif isinstance(value, BaseModel):
        for field in type(value).model_fields:
            yield from _reward_names(getattr(value, field), f"{place}.{field}".lstrip("."))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _reward_names(inner, f"{place}.{number}")
