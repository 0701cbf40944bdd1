"""Moves of the champion: killed after any change, the next completes them; and the chain back."""

import json
import time
from dataclasses import asdict

import mlflow
import pytest

from sdo_ray.promotion.aliases import MOVE, Move, complete, make, read_aliases, version_before
from sdo_ray.promotion.lock import Lease
from tests.support.killed import Killed, kill_at
from tests.support.registry import MODEL

PROMOTION = Move(2, 3, "today by ann", is_rollback=False)
ROLLBACK = Move(2, 1, "today by ann: hands", is_rollback=True)


@pytest.fixture
def lease() -> Lease:
    return Lease(MODEL, time.monotonic() + 3600)


def begin(client: mlflow.MlflowClient) -> None:
    """2 is champion, after 1; 3 was refused once."""
    for alias, version in (("champion", "2"), ("previous", "1")):
        client.set_registered_model_alias(MODEL, alias, version)
    for version, tags in {"1": {}, "2": {"sdo.champion_before": "1"}, "3": {"sdo.refused": "earlier"}}.items():
        for tag in ("sdo.champion_before", "sdo.promoted", "sdo.rolled_back", "sdo.refused"):
            client.delete_model_version_tag(MODEL, version, tag)
        for tag, value in tags.items():
            client.set_model_version_tag(MODEL, version, tag, value)


def state(client: mlflow.MlflowClient) -> tuple[object, ...]:
    versions = (client.get_model_version(MODEL, str(version)).tags for version in (1, 2, 3))
    model = client.get_registered_model(MODEL)
    return model.aliases, model.tags, [{k: v for k, v in tags.items() if "sha256" not in k} for tags in versions]


@pytest.mark.parametrize("move", [PROMOTION, ROLLBACK], ids=["promotion", "rollback"])
def test_killed_after_any_change_it_is_completed(
    client: mlflow.MlflowClient, lease: Lease, monkeypatch: pytest.MonkeyPatch, move: Move
) -> None:
    begin(client)
    make(client, lease, move)
    whole, nth = state(client), 0
    assert read_aliases(client, MODEL) == (
        {"champion": 1, "previous": 1} if move.is_rollback else {"champion": 3, "previous": 2}
    )
    while True:
        nth += 1
        begin(client)
        with monkeypatch.context() as patch:
            kill_at(patch, nth)
            try:
                make(client, lease, move)
                break
            except Killed:
                pass
        complete(client, lease)
        assert state(client) == whole, nth
        assert complete(client, lease) == ""
    assert nth > 4


def test_one_that_others_overtook_is_left(client: mlflow.MlflowClient, lease: Lease) -> None:
    """Somebody without the lock has moved the champion after one died: what they did stands."""
    client.set_registered_model_alias(MODEL, "champion", "1")
    client.set_registered_model_tag(MODEL, MOVE, json.dumps(asdict(PROMOTION)))
    assert complete(client, lease) == (
        "leaving a move of glossy@champion to version 3 that was interrupted (today by ann): the champion is 1 "
        "meanwhile"
    )
    assert read_aliases(client, MODEL) == {"champion": 1}
    assert MOVE not in client.get_registered_model(MODEL).tags


def test_the_way_back_passes_by_what_was_rolled_back_or_deleted(client: mlflow.MlflowClient) -> None:
    for version, before in (("1", "none"), ("2", "1"), ("3", "2")):
        client.set_model_version_tag(MODEL, version, "sdo.champion_before", before)
    assert [version_before(client, MODEL, version) for version in (3, 2, 1)] == [2, 1, None]
    client.set_model_version_tag(MODEL, "2", "sdo.rolled_back", "hands")
    assert version_before(client, MODEL, 3) == 1
    client.set_model_version_tag(MODEL, "1", "sdo.champion_before", "3")  # promoted once more: no endless way
    client.set_model_version_tag(MODEL, "1", "sdo.rolled_back", "hands")
    assert version_before(client, MODEL, 3) is None
    client.delete_model_version(MODEL, "2")
    assert version_before(client, MODEL, 3) is None


def test_a_champion_made_by_hand_goes_back_to_previous(client: mlflow.MlflowClient) -> None:
    client.set_registered_model_alias(MODEL, "champion", "3")
    assert version_before(client, MODEL, 3) is None
    client.set_registered_model_alias(MODEL, "previous", "2")
    assert version_before(client, MODEL, 3) == 2
