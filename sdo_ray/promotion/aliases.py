"""The aliases `champion` and `previous` of a registered model, moved so that a crash in between is completed.

    note the move on the model -> champion -> previous -> tags of the version -> take the note away

Whoever takes the lock next and finds a note does what is left of it: every step may be done twice.

Which version a champion replaced is its tag `sdo.champion_before`; the tags are a chain back through all champions, and
`previous` only shows its first link; it is the champion itself where there is none.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Self

from sdo_ray.promotion.lock import Lease, LeaseOver
from sdo_ray.registry.versions import CHAMPION, PREVIOUS, SCHEME
from sdo_ray.settings import Problem, SettingsError
from sdo_ray.tracking.server import without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient

MOVE = "sdo.move"
"""Tag of a registered model: a move of its champion that goes on."""

CHAMPION_BEFORE, PROMOTED, ROLLED_BACK, REFUSED = (
    "sdo.champion_before",
    "sdo.promoted",
    "sdo.rolled_back",
    "sdo.refused",
)
"""Tags of a version: what it replaced, and what was done with it, by whom, when and why."""


@dataclass(frozen=True)
class Move:
    """One change of the champion."""

    champion: int | None
    """The version that is champion before, if one is."""
    successor: int
    """The version that is champion after."""
    said: str
    """When and by whom; for a rollback, why too."""
    is_rollback: bool

    @classmethod
    def noted(cls, tags: dict[str, str]) -> Self | None:
        """The one that goes on, by the tags of the registered model."""
        return cls(**json.loads(tags[MOVE])) if MOVE in tags else None


def read_aliases(client: MlflowClient, model: str) -> dict[str, int]:
    """Alias -> version.

    Raises:
        SettingsError: there is no such registered model.
    """
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_registered_model(model)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        got = f"the registry at {without_password(client.tracking_uri)} has no model {model!r}"
        fix = "name one; `sdo align` registers them with tracking.register_as"
        raise SettingsError(Problem("promotion.model", got, fix=fix)) from None
    return {alias: int(version) for alias, version in found.aliases.items()}


def make(client: MlflowClient, lease: Lease, move: Move) -> None:
    """Change the champion."""
    lease.check()
    client.set_registered_model_tag(lease.model, MOVE, json.dumps(asdict(move)))
    _apply(client, lease, move)


def complete(client: MlflowClient, lease: Lease) -> str:
    """Do what is left of a move whose maker died; returns what that was, in words, empty if there is none."""
    move = Move.noted(client.get_registered_model(lease.model).tags)
    if move is None:
        return ""
    now = read_aliases(client, lease.model).get(CHAMPION)
    what = f"a move of {lease.model}@{CHAMPION} to version {move.successor} that was interrupted ({move.said})"
    if now not in (move.champion, move.successor):
        client.delete_registered_model_tag(lease.model, MOVE)
        return f"leaving {what}: the champion is {now} meanwhile"
    _apply(client, lease, move)
    return f"completed {what}"


def version_before(client: MlflowClient, model: str, version: int) -> int | None:
    """The champion before `version` that was not rolled back itself and is still there; None if there is none.

    Without the tag, as of a champion that was made by hand, it is what `previous` names.
    """
    seen, before = {version}, _before(client, model, version)
    while before is not None and before not in seen:
        tags = _tags(client, model, before)
        if tags is not None and not tags.get(ROLLED_BACK):
            return before
        seen.add(before)
        before = None if tags is None else _before(client, model, before)
    return None


def _apply(client: MlflowClient, lease: Lease, move: Move) -> None:
    model = lease.model
    _set_champion(client, lease, move.successor)
    if move.is_rollback:
        assert move.champion is not None
        lease.check()
        client.set_model_version_tag(model, str(move.champion), ROLLED_BACK, move.said)
        before = version_before(client, model, move.successor)
    else:
        before = move.champion
        for tag, value in ((CHAMPION_BEFORE, str(before or "none")), (PROMOTED, move.said)):
            lease.check()
            client.set_model_version_tag(model, str(move.successor), tag, value)
        # Emptied and not deleted, as `previous` below is not: that would take the right to delete the model.
        for tag in (_tags(client, model, move.successor) or {}).keys() & {REFUSED, ROLLED_BACK}:
            lease.check()
            client.set_model_version_tag(model, str(move.successor), tag, "")
    lease.check()
    if before is not None or PREVIOUS in read_aliases(client, model):
        client.set_registered_model_alias(model, PREVIOUS, str(before or move.successor))
    client.delete_registered_model_tag(model, MOVE)


def _set_champion(client: MlflowClient, lease: Lease, version: int) -> None:
    lease.check()
    client.set_registered_model_alias(lease.model, CHAMPION, str(version))
    now = read_aliases(client, lease.model).get(CHAMPION)
    if now != version:
        raise LeaseOver(
            lease.model,
            f"the champion was set to version {version} and is {now}: something moves it that does not take the lock; "
            f"look at {SCHEME}{lease.model}@{CHAMPION}",
        )


def _before(client: MlflowClient, model: str, version: int) -> int | None:
    said = (_tags(client, model, version) or {}).get(CHAMPION_BEFORE, "")
    if said:
        return int(said) if said.isascii() and said.isdigit() else None
    aliases = read_aliases(client, model)
    previous = aliases.get(PREVIOUS)
    return previous if aliases.get(CHAMPION) == version and previous != version else None


def _tags(client: MlflowClient, model: str, version: int) -> dict[str, str] | None:
    """A version's tags; None if it was deleted."""
    from mlflow.exceptions import MlflowException

    try:
        return dict(client.get_model_version(model, str(version)).tags)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
