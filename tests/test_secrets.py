"""Secrets are found by their form or their name, refused without being shown, and cut out of text."""

import os
from pathlib import Path

import pytest

from sdo_ray.secrets import (
    RedactedLines,
    kind_of_secret,
    read_secret_files,
    redact,
    refuse_secrets,
    take_credentials_from_tracking_uri,
)
from sdo_ray.settings import SettingsError

SECRETS = {
    "http": ("http://user:hunter2@host:5000/a", "http://***host:5000/a"),
    "two @": ("http://user:hunter2@x@host", "http://***host"),
    "no user": ("redis://:hunter2@host/0", "redis://***host/0"),
    "s3 with a slash in the key": ("s3://AKEY:hunter2/b+c@bucket/path", "s3://***bucket/path"),
    "a database": ("postgresql+psycopg2://u:hunter2@db/x?y=1", "postgresql+psycopg2://***db/x?y=1"),
    "a token before the host": ("https://hunter2@github.com/a/b.zip", "https://***github.com/a/b.zip"),
    "a parameter": ("s3://b/x?region=eu&secret_key=hunter2&a=b", "s3://b/x?region=eu&secret_key=***&a=b"),
    "a signature": ("az://c/x?sv=1&sig=hunter2%3D", "az://c/x?sv=1&sig=***"),
    "Hugging Face": ("hf_" + "a1" * 17, "***"),
    "GitHub": ("ghp_" + "b2" * 18, "***"),
    "AWS": ("AKIA" + "C3" * 8, "***"),
    "GitLab": ("glpat-" + "d4" * 10, "***"),
    "Google's API": ("AIza" + "SyD-9" * 7, "***"),
    "OpenAI": ("sk-proj-" + "e5" * 20, "***"),
    "npm": ("npm_" + "f6" * 18, "***"),
    "PyPI": ("pypi-AgEIcHlwaS5vcmc" + "g7" * 30, "***"),
    "Slack": ("xoxb-123456789012-" + "h8" * 12, "***"),
    "Stripe": ("sk_live_" + "i9" * 12, "***"),
    "SendGrid": ("SG." + "j1" * 11 + "." + "k2" * 20, "***"),
    "DigitalOcean": ("dop_v1_" + "a3" * 32, "***"),
    "a bearer": ("Authorization: Bearer " + "l4" * 12, "Authorization: Bearer ***"),
    "basic authentication": ("Authorization: Basic YW5uOmh1bnRlcjI0NDQ=", "Authorization: Basic ***"),
    "Azure": (
        "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=bTVuNg==;EndpointSuffix=x",
        "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=***;EndpointSuffix=x",
    ),
    "a connection's words": ("host=db user=ann password=hunter2 dbname=x", "host=db user=ann password=*** dbname=x"),
    "a JSON web token": ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N", "***"),
    "a key": ("-----BEGIN RSA PRIVATE KEY-----\nhunter2\n-----END RSA PRIVATE KEY-----", "***"),
}


@pytest.mark.parametrize(("secret", "shown"), SECRETS.values(), ids=SECRETS.keys())
def test_forms_of_secrets(secret: str, shown: str) -> None:
    assert kind_of_secret("anything", secret) is not None
    assert redact(f"before {secret} after\nnext") == f"before {shown} after\nnext"
    assert kind_of_secret("anything", shown.replace("***", "")) is None


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "db_password",
        "MINIO_SECRET",
        "HF_TOKEN",
        "GITHUB_TOKEN",
        "token",
        "api_key",
        "apikey",
        "AWS_SECRET_ACCESS_KEY",
        "aws_access_key_id",
        "auth_token",
        "credentials",
        "s3.secret",
        "PGPASSWORD",
        "MYSQL_PWD",
        "DB_PASS",
        "dbpassword",
        "clientSecret",
        "AZURE_STORAGE_KEY",
        "signing_key",
        "auth",
        "cookie",
        "accessToken",
    ],
)
def test_names_of_secrets(name: str) -> None:
    assert kind_of_secret(name, "short") is not None
    assert kind_of_secret(name, "") is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("storage", "s3://bucket/path?region=eu-west-1"),
        ("storage", "abfss://container@account.dfs.core.windows.net/path"),
        ("uri", "http://mlflow:5000/#/experiments/1"),
        ("uri", "http://host:80/people/a@b"),
        ("negative_prompt", "mail: someone@example.com, blurry"),
        ("instance_token", "sks"),
        ("tokenizer", "clip"),
        ("prompt", "Basic internationalization, bearer of internationalization"),
        ("prompt", "risk-averse-investment-strategies-for-everybody, a password, a key"),
        ("key", "value"),
        ("tag", "tokenizer_sha256: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"),
        ("text", "SKETCH of a NASA ACADEMY in APRIL, 1200:1600, MONDAY.morning.sun"),
        ("author", "Ann"),
        ("compass", "north"),
        ("HF_TOKEN_PATH", "/run/secrets/hf"),
        ("RAY_AUTH_TOKEN_PATH", "/run/secrets/ray"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/run/secrets/s3"),
        ("MLFLOW_TRACKING_PASSWORD_FILE", "/run/secrets/mlflow"),
    ],
)
def test_what_is_no_secret(name: str, value: str) -> None:
    assert kind_of_secret(name, value) is None
    assert redact(value) == value


def test_all_places_are_named_and_none_is_shown() -> None:
    settings = {
        "run": {"storage": "s3://key:hunter2@bucket"},
        "rewards": {"terms": [{"name": "a"}, {"runtime_env": {"env_vars": {"API_KEY": "hunter3"}}}]},
        "list": [["https://hunter4@host"]],
        "number": 3,
    }
    with pytest.raises(SettingsError) as refused:
        refuse_secrets(settings)
    said = str(refused.value)
    assert [str(problem).partition(":")[0] for problem in refused.value.problems] == [
        "run.storage",
        "rewards.terms.1.runtime_env.env_vars.API_KEY",
        "list.0.0",
    ]
    assert "hunter" not in said
    assert "AWS_SHARED_CREDENTIALS_FILE" in said
    refuse_secrets({"run": {"storage": "s3://bucket"}})


def test_a_secret_in_two_pieces_is_cut_out() -> None:
    token, said = "hf_" + "a1" * 17, list[str]()
    lines = RedactedLines(said.append)
    for piece in ("one\ntwo ", token[:20], token[20:] + "\nthree"):
        lines.add(piece)
    assert said == ["one\n", "two ***\n"]
    lines.end()
    assert said[2:] == ["three"]


def test_secret_files(tmp_path: Path, monkeypatch) -> None:
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
        monkeypatch.setenv(name, "remembered, and put back at the end")
        monkeypatch.delenv(name)
        monkeypatch.delenv(f"{name}_FILE", raising=False)
    (tmp_path / "password").write_text("hunter2\n")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD_FILE", str(tmp_path / "password"))
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "given")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME_FILE", str(tmp_path / "password"))
    read_secret_files()
    assert os.environ["MLFLOW_TRACKING_PASSWORD"] == "hunter2"
    assert os.environ["MLFLOW_TRACKING_USERNAME"] == "given"
    assert "MLFLOW_TRACKING_TOKEN" not in os.environ
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN_FILE", str(tmp_path / "missing"))
    with pytest.raises(SettingsError, match=r"MLFLOW_TRACKING_TOKEN_FILE: .*missing' cannot be read: No such file"):
        read_secret_files()


@pytest.mark.parametrize(
    ("given", "address", "user", "password"),
    [
        ("http://ann:p%40ss:w@host:5000/x", "http://host:5000/x", "ann", "p@ss:w"),
        ("https://ann@host", "https://host", "ann", ""),
        ("http://host:5000", "http://host:5000", None, None),
        ("postgresql://ann:pass@host/db", "postgresql://ann:pass@host/db", None, None),
    ],
)
def test_credentials_leave_the_tracking_uri(monkeypatch, given: str, address: str, user: str, password: str) -> None:
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "remembered, and put back at the end")
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
    take_credentials_from_tracking_uri()
    assert os.environ["MLFLOW_TRACKING_URI"] == address
    assert os.environ.get("MLFLOW_TRACKING_USERNAME") == user
    assert os.environ.get("MLFLOW_TRACKING_PASSWORD") == password
