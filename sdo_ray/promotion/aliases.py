"""The aliases `champion` and `previous` of a registered model, read and moved under its lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdo_ray.promotion.lock import Lease, LeaseOver
from sdo_ray.registry.versions import CHAMPION, PREVIOUS, SCHEME
from sdo_ray.settings import Problem, SettingsError
from sdo_ray.tracking.server import without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient


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


def crown(client: MlflowClient, lease: Lease, champion: int | None, successor: int) -> None:
    """Make `successor` the champion, and keep the champion as the one before.

    `previous` moves first, so that whatever this is interrupted at, there is one champion and `previous` names one that
    has been. Done again, it does what was left.
    """
    if champion is not None:
        lease.check()
        client.set_registered_model_alias(lease.model, PREVIOUS, str(champion))
    _set_champion(client, lease, successor)


def step_back(client: MlflowClient, lease: Lease, previous: int) -> None:
    """Make `previous` the champion again; afterwards there is no one before."""
    _set_champion(client, lease, previous)
    lease.check()
    client.delete_registered_model_alias(lease.model, PREVIOUS)


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
