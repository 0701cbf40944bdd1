"""Secrets stay out of settings, records and what is printed: find them, refuse them, cut them out.

A run's settings are written beside it, logged to MLflow and shown on Ray's dashboard, so nothing secret may be among
them. Where it belongs instead: a file that only the job reads, named by an environment variable.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    r"(?i:(passwords?|passwd|passphrase|pwd|secrets?|api_?keys?|credentials?)$"
    r"|(^|[_.-])(pass|auth|authorization|cookies?)$"
    r"|(access|account|storage|signing|encryption|private|shared|service|master)_?keys?(_?id)?$)"
    # A variable of the environment, any token; a setting, not words of a prompt such as `instance_token`.
    r"|_TOKEN$|^(?i:(auth|access|api|bearer|hf|session|refresh|client)_?)?(token|Token)$"
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
    (
        "a private key",
        re.compile(
            r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY( BLOCK)?-----[\s\S]*?(-----END [A-Z0-9 ]*PRIVATE KEY( BLOCK)?-----|$)"
            r"|PuTTY-User-Key-File-\d[\s\S]*"
        ),
    ),
    (
        "a password in a list of parameters",
        re.compile(r"(?P<keep>\b(?:password|passwd|pwd|AccountKey|SharedAccess(?:Key|Signature))\s*=)[^\s;&,]+", re.I),
    ),
    (
        "a key or token by its name",
        re.compile(
            r"(?P<keep>\b[\w.-]*(?:secret|token|passw(?:or)?d|pwd|(?:api|access|auth|account)[_-]?key"
            r"|(?:aws|ibm|iam|cloud|cos|softlayer|sl|cloudant)[_-]?(?:api)?[_-]?key)(?:[_-]?(?:key|id|value))?[\"']?\s*(?::=|=>|[=:])\s*[\"']?)"
            r"(?=[^\s\"'/]*\d)[\w+/=-]{20,}",
            re.I,
        ),
    ),
    (
        "a webhook",
        re.compile(
            r"(?P<keep>https://hooks\.slack\.com/services/|https?://api\.softlayer\.com/soap/v3(?:\.1)?/)[\w/]+", re.I
        ),
    ),
    (
        "an authorization header",
        re.compile(r"(?P<keep>\b(?:Bearer|Basic)\s+)(?=[\w.~+/-]*[\d=])[\w.~+/-]{16,}=*"),
    ),
    (
        "an access token",
        # As their issuers document them: Hugging Face, GitHub, GitLab, AWS, Google, OpenAI and Anthropic, npm, PyPI,
        # Slack, Stripe, SendGrid, DigitalOcean, Replicate, age, Artifactory, Discord, Mailchimp, Square, Telegram,
        # Twilio; JSON web tokens.
        re.compile(
            r"\b(hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|gl(pat|dt|ft|rt|cbt|ptt|imt|soat|oas|agent)-[\w-]{20,}"
            r"|GR1348941[\w-]{20,}|(A3T[A-Z0-9]|ABIA|ACCA|AKIA|ASIA)[0-9A-Z]{16}|AIza[\w-]{35}|GOCSPX-[\w-]{20,}|ya29\.[\w-]{20,}|sk-(?=\S*\d)[\w-]{20,}|npm_[A-Za-z0-9]{36}"
            r"|pypi-[\w-]{40,}|xox[abprse]-[\w-]{10,}|xapp-[\w-]{10,}|[sr]k_(live|test)_[A-Za-z0-9]{16,}"
            r"|SG\.[\w-]{16,}\.[\w-]{16,}|do[opr]_v1_[0-9a-f]{64}|r8_[A-Za-z0-9]{30,}|AGE-SECRET-KEY-1[0-9A-Z]{50,}"
            r"|AKC[A-Za-z0-9]{60,}|AP[0-9A-F][A-Za-z0-9]{30,}|[MNO][\w-]{23,25}\.[\w-]{6}\.[\w-]{27}|[0-9a-z]{32}-us\d{1,2}"
            r"|sq0csp-[\w-]{43}|\d{8,10}:[\w-]{35}|(AC|SK)[0-9a-f]{32}|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]+)"
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
        for place, name, value in _strings(settings, "", "", set()):
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


class RedactedLines:
    """Text that comes in pieces, handed on by whole lines without secrets, for one may come in two pieces.

    Args:
        write: takes the lines.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._rest = ""

    def add(self, text: str) -> None:
        """The next piece."""
        lines, end, self._rest = (self._rest + text).rpartition("\n")
        if end:
            self._write(redact(lines + end))

    def end(self) -> None:
        """There is no more: what is left is a line too."""
        if self._rest:
            self._write(redact(self._rest))
        self._rest = ""


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


def _strings(value: Any, place: str, name: str, seen: set[int]) -> Iterator[tuple[str, str, str]]:
    """(place, last key that is a name, text) for every text in nested settings; keys that are no text count as text.
    A section that YAML's aliases name in several places is looked at once."""
    if isinstance(value, str):
        yield place, name, value
    elif isinstance(value, Mapping | Sequence):
        if id(value) in seen:
            return
        seen.add(id(value))
        for key, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
            inner_name = str(key) if isinstance(value, Mapping) else name
            yield from _strings(inner, f"{place}.{key}".lstrip("."), inner_name, seen)
