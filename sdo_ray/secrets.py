"""Secrets stay out of settings, records and what is printed: find them, refuse them, cut them out.

A run's settings are written beside it, logged to MLflow and shown on Ray's dashboard, so nothing secret may be among
them. Where it belongs instead: a file that only the job reads, named by an environment variable.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from sdo_ray.settings import Problem, Problems, SettingsError

CUT = "***"
"""What stands where a secret was."""

FROM_FILES = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
"""Variables that `read_secret_files` sets. Ray, Hugging Face and AWS read files themselves: RAY_AUTH_TOKEN_PATH,
HF_TOKEN_PATH, AWS_SHARED_CREDENTIALS_FILE."""

_NAME = re.compile(
    r"(?i:(^|[_.-])(password|passwd|passphrase|secret|api_?key|(secret_)?access_?key(_id)?|private_?key|credentials?)s?$)"
    # A variable of the environment, any token; a setting, not words of a prompt such as `instance_token`.
    r"|_TOKEN$|^((auth|access|api|bearer|hf|session|refresh)_)?token$"
)
_FORMATS = (
    # (what it is, pattern); the group `keep`, where there is one, survives the cut. A password may hold any of :/@.
    (
        "a user and password in a URI",
        re.compile(r"""(?P<keep>\b[a-z][a-z0-9+.-]*://)[^\s/?#@:"']*:(?!\d+[/?#])[^\s"'<>]*@""", re.I),
    ),
    ("a token in a URI", re.compile(r"(?P<keep>\bhttps?://)[^\s/?#@]+@", re.I)),
    (
        "a secret in a URI's parameters",
        re.compile(
            r"(?P<keep>[?&](?:access_key|secret_key|session_token|password|token|sig|X-Amz-Signature)=)[^\s&#]+", re.I
        ),
    ),
    ("a private key", re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(-----END [A-Z ]*PRIVATE KEY-----|$)")),
    (
        "an access token",
        re.compile(
            r"\b(hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|(AKIA|ASIA)[0-9A-Z]{16}"
            r"|xox[abprs]-[\w-]{10,}|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]+)"
        ),
    ),
)


def kind_of_secret(name: str, value: str) -> str | None:
    """What secret `value`, called `name`, looks like, in words; None if like none."""
    for kind, pattern in _FORMATS:
        if pattern.search(value):
            return kind
    return "what its name says is a secret" if value and _NAME.search(name) else None


def refuse_secrets(settings: Mapping[str, Any]) -> None:
    """Refuse settings that hold secrets.

    Args:
        settings: nested, as read from YAML.

    Raises:
        SettingsError: the places, a line each, without what they hold.
    """
    with Problems() as problems:
        for place, name, value in _strings(settings, "", ""):
            if kind := kind_of_secret(name, value):
                fix = (
                    "take it out, and give it by a file that an environment variable names, such as "
                    "AWS_SHARED_CREDENTIALS_FILE; docs/operations.md lists them"
                )
                problems.add(Problem(place, f"holds {kind}, and settings are kept, logged and shown", fix=fix))


def redact(text: str) -> str:
    """`text` with everything that looks like a secret cut out of it."""
    for _, pattern in _FORMATS:
        text = pattern.sub(lambda found: (found.groupdict().get("keep") or "") + CUT, text)
    return text


def read_secret_files() -> None:
    """Set each variable of `FROM_FILES` that is not set to the content of the file that NAME_FILE names, if it is.

    Raises:
        SettingsError: such a file cannot be read.
    """
    for name in FROM_FILES:
        if (path := os.environ.get(f"{name}_FILE")) and name not in os.environ:
            try:
                os.environ[name] = Path(path).read_text().strip()
            except OSError as error:
                got = f"{path!r} cannot be read: {error.strerror}"
                raise SettingsError(Problem(f"{name}_FILE", got, fix="mount it")) from None


def take_credentials_from_tracking_uri() -> None:
    """Split `http://USER:PASSWORD@HOST` in MLFLOW_TRACKING_URI into the address and the variables that MLflow reads.

    The address alone is then what records, messages and MLflow's own errors can show.
    """
    address = urlsplit(os.environ.get("MLFLOW_TRACKING_URI", ""))
    credentials, at, host = address.netloc.rpartition("@")
    if not at or address.scheme not in ("http", "https"):
        return
    user, _, password = credentials.partition(":")
    os.environ["MLFLOW_TRACKING_URI"] = address._replace(netloc=host).geturl()
    os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(user)
    os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(password)


def _strings(value: Any, place: str, name: str) -> Iterator[tuple[str, str, str]]:
    """(place, last key that is a name, text) for every text in nested settings; keys that are no text count as text."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _strings(inner, f"{place}.{key}".lstrip("."), str(key))
    elif isinstance(value, str):
        yield place, name, value
    elif isinstance(value, Sequence):
        for index, inner in enumerate(value):
            yield from _strings(inner, f"{place}.{index}", name)
