"""JSON over HTTP to a scorer that may be slow, away or wrong."""

import base64
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from io import BytesIO
from typing import Any, TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from PIL import Image
from torch import Tensor

from rewards.towers.one_by_one import to_uint8

_log = logging.getLogger(__name__)
_Answer = TypeVar("_Answer")
_TRANSIENT = {408, 425, 429}
_LARGEST = 16 << 20
_FIRST_WAIT = 0.5


class BadAnswerError(ValueError):
    """An answer that is not what was asked for."""


class RefusedError(ValueError):
    """The server says that the request itself is wrong: asking again would not help."""


@dataclass(frozen=True)
class Endpoint:
    """Where to ask, and how patiently."""

    url: str
    """http or https."""

    timeout: float
    """Seconds that an answer may take."""

    retries: int
    """How often to ask again when there is no answer, or none that makes sense; waits double from half a second."""

    key_variable: str | None = None
    """Environment variable with a key that is sent as a bearer token; None: none is."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"option 'url' must be an http or https address, got {self.url!r}")
        if parts.username or parts.password:
            raise ValueError("option 'url' must not have a user or password in it; name the variable `key_variable`")
        if self.timeout <= 0 or self.retries < 0:
            raise ValueError(f"timeout must be positive and retries 0 or more, got {self.timeout} and {self.retries}")

    def ask(self, body: Mapping[str, Any], read: Callable[[Any], _Answer]) -> _Answer | None:
        """Post `body` and read the answer.

        Args:
            body: what becomes JSON.
            read: of the answer's JSON; raises BadAnswerError if it is not what was asked for.

        Returns:
            None after the last retry: there is no answer. It is logged.

        Raises:
            RefusedError: the server answers with a status that asking again does not change, such as 401 or 404; the
                key's variable is not set.
        """
        for attempt in range(self.retries + 1):
            if attempt:
                time.sleep(_FIRST_WAIT * 2 ** (attempt - 1))
            try:
                return read(self._post(body))
            except HTTPError as error:
                if error.code < 500 and error.code not in _TRANSIENT:
                    said = error.read(300).decode(errors="replace")
                    raise RefusedError(f"{self.url} answers {error.code} {error.reason}: {said}") from None
                problem = f"{error.code} {error.reason}"
            except (URLError, OSError, HTTPException, BadAnswerError) as error:
                problem = f"{type(error).__name__}: {error}"
        _log.warning("no answer from %s after %d attempts: %s", self.url, self.retries + 1, problem)
        return None

    def _post(self, body: Mapping[str, Any]) -> Any:
        headers = {"Content-Type": "application/json"}
        if self.key_variable is not None:
            if not os.environ.get(self.key_variable):
                raise RefusedError(f"the environment variable {self.key_variable!r} with the key is not set")
            headers["Authorization"] = f"Bearer {os.environ[self.key_variable]}"
        request = Request(self.url, json.dumps(body).encode(), headers)
        with _opener.open(request, timeout=self.timeout) as answer:
            text = answer.read(_LARGEST + 1)
        if len(text) > _LARGEST:
            raise BadAnswerError("the answer is larger than 16 MiB")
        try:
            return json.loads(text)
        except ValueError:
            raise BadAnswerError(f"the answer is no JSON: {text[:100]!r}") from None


class _NoRedirects(HTTPRedirectHandler):
    """A redirect would take the key to another host."""

    def redirect_request(self, *_: Any) -> None:
        return None


_opener = build_opener(_NoRedirects)


def as_png(image: Tensor) -> str:
    """An image [3, H, W] in [0, 1] as a PNG file in base64."""
    file = BytesIO()
    Image.fromarray(to_uint8(image)).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()
