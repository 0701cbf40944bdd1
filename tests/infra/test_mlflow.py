"""The MLflow server of infra/mlflow: its compose file, and the server over HTTP with PostgreSQL and an S3 server."""

import os
import re
import secrets
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import mlflow
import pytest
import yaml
from compose_spec import PyCompose
from moto.server import ThreadedMotoServer

from sdo_ray.secrets import kind_of_secret
from sdo_ray.storage import RunDirectory
from sdo_ray.tracking.run import TrackedRun
from sdo_ray.tracking.server import check_server
from sdo_ray.training.update_log import UpdateLog
from tests.support.mlflow_server import serving
from tests.support.ports import free_port
from tests.support.postgres import postgres, skip_without_postgres
from tests.support.runs import REPOSITORY
from tests.support.updates import report
from tests.tracking.test_run import image

DIRECTORY = REPOSITORY / "infra/mlflow"

Services = dict[str, dict[str, Any]]


def compose_file() -> dict[str, Any]:
    """With the defaults of its variables put in."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", (DIRECTORY / "compose.yaml").read_text())
    parsed: dict[str, Any] = yaml.safe_load(text)
    return parsed


def validate(compose: dict[str, Any]) -> None:
    PyCompose.from_yaml(yaml.safe_dump(compose)).validate()
    services = compose["services"]
    for service in services.values():
        assert service.get("depends_on", {}).keys() <= services.keys()
        assert {volume.split(":")[0] for volume in service.get("volumes", [])} <= compose["volumes"].keys()


def test_the_compose_file_fits_the_specification() -> None:
    validate(compose_file())


MISTAKES: dict[str, Callable[[Services], Any]] = {
    "an unknown field": lambda s: s["mlflow"].update(comand="x"),
    "no such secret": lambda s: s["mlflow"].update(secrets=["password"]),
    "no such network": lambda s: s["s3"].update(networks=["internal"]),
    "no such volume": lambda s: s["postgres"].update(volumes=["data:/data"]),
    "no such condition": lambda s: s["mlflow"].update(depends_on={"s3": {"condition": "ready"}}),
    "no such service": lambda s: s["mlflow"].update(depends_on={"minio": {"condition": "service_started"}}),
    "no duration": lambda s: s["s3"]["healthcheck"].update(interval="often"),
    "no port": lambda s: s["mlflow"].update(ports=["http"]),
}


@pytest.mark.parametrize("spoil", MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_are_found(spoil: Callable[[Services], Any]) -> None:
    compose = compose_file()
    spoil(compose["services"])
    with pytest.raises((ValueError, AssertionError)):
        validate(compose)


def test_services_are_confined_and_get_secrets_as_files() -> None:
    compose = compose_file()
    for name, service in compose["services"].items():
        assert service["user"].split(":")[0].isdigit(), name
        assert service["user"] != "0:0"
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"}
        assert re.fullmatch(r"[\w/.-]+:[\w.-]*\d[\w.-]*", service["image"])
        for variable, value in service.get("environment", {}).items():
            assert not kind_of_secret(variable, str(value)), f"{name}: {variable}"
        assert not any(kind_of_secret("", str(part)) for part in service.get("command", []))
        if name != "bucket":  # the one that ends
            has_check = "healthcheck" in service or name == "mlflow"  # whose check is in its image
            assert has_check
            assert service["restart"] == "unless-stopped"
        if name != "mlflow":
            assert "ports" not in service
            assert service["networks"] == ["inside"]
    assert compose["networks"]["inside"]["internal"] is True
    assert all(secret.keys() == {"file"} for secret in compose["secrets"].values())
    ignored = (REPOSITORY / ".gitignore").read_text().splitlines()
    assert "/infra/mlflow/secrets/" in ignored


@pytest.fixture
def server(tmp_path: Path, monkeypatch) -> Iterator[tuple[str, str, Path]]:
    """The server as its image starts it; yields its address, the administrator's password and its log."""
    skip_without_postgres()
    files = tmp_path / "secrets"
    files.mkdir()
    key, secret, password = "access", secrets.token_hex(16), secrets.token_urlsafe(16)
    (files / "s3_credentials").write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")
    (files / "admin_password").write_text(password)
    (files / "flask_secret_key").write_text(secrets.token_hex(16))
    s3 = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    s3.start()
    host, s3_port = s3.get_host_and_port()
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(files / "s3_credentials"))
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://{host}:{s3_port}")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    make_bucket = compose_file()["services"]["bucket"]["command"][-1]
    for _ in range(2):  # the second time it is there
        exec(make_bucket, {})
    with postgres() as database:
        at = urlsplit(database)
        (files / "postgres_password").write_text(at.password or "")
        port = free_port()
        environment = {
            "SECRETS": str(files),
            "PGHOST": at.hostname or "",
            "PGPORT": str(at.port),
            "PGUSER": at.username or "",
            "PGDATABASE": at.path.lstrip("/"),
            "MLFLOW_S3_ENDPOINT_URL": f"http://{host}:{s3_port}",
            "MLFLOW_AUTH_CONFIG_PATH": str(DIRECTORY / "basic_auth.ini"),
            "ARTIFACTS": "s3://mlflow",
            "ALLOWED_HOSTS": f"127.0.0.1:{port}",
            "PORT": str(port),
            "WORKERS": "1",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        log = tmp_path / "server.log"
        with serving(["sh", str(DIRECTORY / "serve.sh")], port, log, environment) as uri:
            yield uri, password, log
    s3.stop()


@pytest.mark.slow
def test_the_server_keeps_runs_in_postgresql_and_artifacts_in_s3(server, tmp_path: Path, monkeypatch) -> None:
    import boto3

    uri, password, log = server
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    with pytest.raises(Exception, match="401"):
        mlflow.MlflowClient(uri).search_experiments()
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
    mlflow.MlflowClient(uri).search_experiments()  # the first answer may take longer than a check waits
    check_server(uri)
    run = RunDirectory(str(tmp_path), "run")
    with TrackedRun(uri, "emoji", run, "run", {"training": {"updates": 1}}) as tracked, UpdateLog(tracked) as updates:
        updates.catch_up([report(0, image())])
    client = mlflow.MlflowClient(uri)
    assert client.get_run(tracked.run_id).data.metrics["reward/mean"] == 0.5
    # Artifacts went through the server: this client has S3 credentials only to look at what is there.
    keys = [entry["Key"] for entry in boto3.client("s3").list_objects_v2(Bucket="mlflow")["Contents"]]
    assert any(key.endswith(".png") for key in keys)
    said = log.read_text()
    credentials = Path(os.environ["AWS_SHARED_CREDENTIALS_FILE"]).read_text().split()[-1]
    for secret in (password, credentials, (log.parent / "secrets/postgres_password").read_text()):
        assert secret not in said
