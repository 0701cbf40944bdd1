"""Promotion against real MLflow servers over HTTP: many at once, killed ones, users and passwords."""

import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import pytest
import requests
from mlflow.server.auth.client import AuthServiceClient

from sdo_ray.promotion import lock
from sdo_ray.settings import SettingsError
from sdo_ray.storage import RunDirectory
from sdo_ray.tracking.run import check_tracked
from tests.support.mlflow_server import MlflowServer, mlflow_server
from tests.support.postgres import postgres, skip_without_postgres
from tests.support.promoter import Promoter
from tests.support.registry import evaluation, promotion_settings, registered

MANY = 5


DATABASES = ("sqlite", pytest.param("postgresql", marks=pytest.mark.slow))


@contextmanager
def served(database: str, directory: Path, authenticated: bool) -> Iterator[MlflowServer]:
    if database == "sqlite":
        with mlflow_server(directory, authenticated=authenticated) as server:
            yield server
    else:
        skip_without_postgres()
        with postgres() as backend, mlflow_server(directory, backend=backend, authenticated=authenticated) as server:
            yield server


@pytest.fixture(scope="module", params=DATABASES)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    with served(request.param, tmp_path_factory.mktemp(request.param), authenticated=False) as server:
        yield server


@pytest.fixture(scope="module", params=DATABASES)
def authenticated(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    with served(request.param, tmp_path_factory.mktemp(f"users-{request.param}"), authenticated=True) as server:
        yield server


def settings(
    server: MlflowServer, directory: Path, candidate: int, champion: int | None, model: str, lock_seconds: float = 300.0
) -> Path:
    """A promotion with much time for its requests, for tests share their machine."""
    directory.mkdir(parents=True)
    scores = {"candidate_q": [2.0 + candidate] * 4, "champion_q": [1.0] * 4}
    it, rules = evaluation(candidate, champion, model=model, **scores), ("q > champion", "q > base")
    return promotion_settings(directory, it, *rules, model=model, uri=server.uri, lock_seconds=lock_seconds)


def aliases(client: mlflow.MlflowClient, model: str) -> dict[str, str]:
    return dict(client.get_registered_model(model).aliases)


def leftovers(client: mlflow.MlflowClient, model: str) -> list[str]:
    return [name for name in client.get_registered_model(model).tags if name.startswith("sdo.")]


def test_of_many_at_once_one_wins(server: MlflowServer, tmp_path: Path) -> None:
    """They start together, each with a candidate that beats the champion; the others find the champion moved."""
    client = registered(server.uri, "many", MANY + 1)
    client.set_registered_model_alias("many", "champion", "1")
    candidates = range(2, MANY + 2)
    promoters = [Promoter(settings(server, tmp_path / str(c), c, 1, "many"), server.environment) for c in candidates]
    for promoter in promoters:
        promoter.until("ready")
    codes = [promoter.finish() for promoter in [promoter.go() for promoter in promoters]]
    said = "\n---\n".join(promoter.output for promoter in promoters)
    assert sorted(codes) == [0] + [2] * (MANY - 1), said
    winner = candidates[codes.index(0)]
    assert aliases(client, "many") == {"champion": str(winner), "previous": "1"}
    for candidate, promoter in zip(candidates, promoters, strict=True):
        tags = client.get_model_version("many", str(candidate)).tags
        assert ("sdo.promoted" in tags) == (candidate == winner)
        if candidate != winner:
            assert f"the champion is models:/many/{winner}, and the evaluation compared with models:/many/1" in (
                promoter.output
            )
    assert leftovers(client, "many") == []


@pytest.mark.slow
def test_one_that_is_killed_with_the_lock_is_taken_over_from(server: MlflowServer, tmp_path: Path) -> None:
    """30 seconds of waiting, the shortest lease that may be set."""
    client = registered(server.uri, "killed", 3)
    client.set_registered_model_alias("killed", "champion", "1")
    its = settings(server, tmp_path / "2", 2, 1, "killed", lock_seconds=30.0)
    holder = Promoter(its, server.environment, hold=True).until("ready").go()
    holder.until("inside")
    holder.kill()
    assert len(leftovers(client, "killed")) == 1
    start = time.monotonic()
    other = Promoter(settings(server, tmp_path / "3", 3, 1, "killed"), server.environment).until("ready").go()
    assert other.finish() == 0, other.output
    assert time.monotonic() - start >= 30
    assert re.search(r"waiting for \S+@\S+ \(process \d+\), who is changing the champion of killed", other.output)
    assert "it is taken over in 30 s" in other.output
    assert f"(process {holder.process.pid}), who did not finish within 30 s" in other.output
    assert aliases(client, "killed") == {"champion": "3", "previous": "1"}
    assert leftovers(client, "killed") == []


def user(server: MlflowServer, name: str, *, may_edit: str | None = None) -> dict[str, str]:
    """A new user's environment."""
    users = AuthServiceClient(server.uri)
    users.create_user(name, password := secrets.token_urlsafe(16))
    if may_edit is not None:
        users.grant_user_permission(name, "registered_model", may_edit, "EDIT")
    return server.environment | {"MLFLOW_TRACKING_USERNAME": name, "MLFLOW_TRACKING_PASSWORD": password}


def become(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


@pytest.mark.slow
def test_users_with_rights_of_their_own(
    authenticated: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bob may edit the model and nothing else, and promotes; eve may read, and neither promotes nor blocks others."""
    become(monkeypatch, authenticated.environment)
    client = registered(authenticated.uri, "shared", 2)
    bob, eve = user(authenticated, "bob", may_edit="shared"), user(authenticated, "eve")
    config = settings(authenticated, tmp_path / "1", 1, None, "shared")
    second = settings(authenticated, tmp_path / "2", 2, 1, "shared")
    become(monkeypatch, eve)
    with pytest.raises(mlflow.MlflowException, match="ermission denied"), lock.lease(client, "shared", "eve", 60):
        pass
    client.create_registered_model("shared.promotion-lock.999", {"sdo.lock.seconds": "1e9", "sdo.lock.owner": "eve"})
    refused = Promoter(config, eve).until("ready").go()
    assert refused.finish() == 1
    assert "set-tag" in refused.output
    assert "ermission denied" in refused.output
    promoted = Promoter(config, bob).until("ready").go()
    assert promoted.finish() == 0, promoted.output
    assert aliases(client, "shared") == {"champion": "1"}
    assert Promoter(second, bob).until("ready").go().finish() == 0
    assert aliases(client, "shared") == {"champion": "2", "previous": "1"}

    # One user died with the lock; another who may edit the model takes over.
    monkeypatch.setattr(lock, "PATIENCE", 0.0)
    become(monkeypatch, authenticated.environment)
    dead = lock._Ticket(client, "shared", "ann", 1.0)
    dead.draw()
    become(monkeypatch, bob)
    with lock.lease(client, "shared", "bob", 60, lambda _: None):
        assert dead.name not in lock.tickets(client, "shared")
    assert leftovers(client, "shared") == []


def test_an_experiment_of_another_user_is_refused_before_work_starts(
    authenticated: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One default experiment, and an account for each person: who came first owns it."""
    become(monkeypatch, authenticated.environment)
    ann, carl = user(authenticated, "ann"), user(authenticated, "carl")
    become(monkeypatch, ann)
    directory = RunDirectory(str(tmp_path), "run")
    check_tracked(authenticated.uri, "anns", directory)
    become(monkeypatch, carl)
    with pytest.raises(SettingsError, match="this user of MLflow may not write to 'anns'; ask who"):
        check_tracked(authenticated.uri, "anns", directory)
    check_tracked(authenticated.uri, "carls", directory)


@pytest.mark.slow
def test_user_and_password(authenticated: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without them, with wrong ones and with the right ones; none is ever printed or kept."""
    for name, value in authenticated.environment.items():
        monkeypatch.setenv(name, value)
    registered(authenticated.uri, "guarded", 1)
    config = settings(authenticated, tmp_path / "1", 1, None, "guarded")
    right = authenticated.environment["MLFLOW_TRACKING_PASSWORD"]
    wrong = "not-the-p4ssword"
    for name in authenticated.environment:
        monkeypatch.delenv(name)

    address = {"MLFLOW_TRACKING_URI": authenticated.uri}
    nobody = Promoter(config, address).until("ready").go()
    assert nobody.finish() == 2
    assert f"MLFLOW_TRACKING_URI: MLflow at {authenticated.uri} does not answer" in nobody.output
    assert "not authenticated" in nobody.output
    mistaken = Promoter(config, authenticated.environment | {"MLFLOW_TRACKING_PASSWORD": wrong}).until("ready").go()
    assert mistaken.finish() == 2
    assert "not authenticated" in mistaken.output
    assert "correct the address or credentials" in mistaken.output
    host = authenticated.uri.removeprefix("http://")
    in_address = Promoter(config, {"MLFLOW_TRACKING_URI": f"http://admin:{wrong}@{host}"}).until("ready").go()
    assert in_address.finish() == 2
    known = Promoter(config, authenticated.environment).until("ready").go()
    assert known.finish() == 0, known.output

    kept = "".join(file.read_text(errors="replace") for file in tmp_path.rglob("*") if file.is_file())
    said = "".join(p.output for p in (nobody, mistaken, in_address, known))
    tags = requests.get(
        f"{authenticated.uri}/api/2.0/mlflow/model-versions/get",
        params={"name": "guarded", "version": "1"},
        auth=("admin", right),
        timeout=30,
    ).text
    assert "sdo.promoted" in tags
    for secret in (right, wrong):
        assert secret not in said + kept + tags + authenticated.log.read_text()
