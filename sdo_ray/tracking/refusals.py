"""What MLflow will never take, however often it is sent, and what it only cannot take now."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sdo_ray.secrets import redact

_CODES = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS")
"""MLflow's own. Missing rights are not among them, as somebody may give them, nor ENDPOINT_NOT_FOUND: a proxy says so
whose server is away."""
_STATUSES = (400, 413, 415, 422)
"""Of an upload of a file, by the same reasoning."""


class Refusals:
    """Counts what MLflow refused for good, and says what and why, once an entry or a reason.

    Args:
        is_deleted: whether the run was deleted, asked where something is refused: of a deleted run everything is, until
            somebody restores it.
    """

    def __init__(self, is_deleted: Callable[[], bool]) -> None:
        self.count = 0
        self._is_deleted = is_deleted
        self._said: set[str] = set()

    @contextmanager
    def passed_over(self, entry: str) -> Iterator[None]:
        """Inside the block an entry is sent; where it is refused for good, what comes after it goes on.

        Args:
            entry: its kind and name, "metric reward/mean".
        """
        try:
            yield
        except Exception as error:
            if not self.is_final(error):
                raise
            self.count += 1
            why = redact(" ".join(str(error).split()))[:300]
            if not {entry, why} & self._said:
                print(f"MLflow refuses {entry}, which is not sent again: {why}", flush=True)
            self._said |= {entry, why}

    def is_final(self, error: Exception) -> bool:
        """Whether the same request would be refused again, of this run."""
        return is_for_good(error) and not self._is_deleted()


def is_for_good(error: Exception) -> bool:
    """Whether the same request would be refused again, on a server that is well."""
    from mlflow.exceptions import MlflowException
    from requests import HTTPError

    if isinstance(error, HTTPError):
        return error.response is not None and error.response.status_code in _STATUSES
    return isinstance(error, MlflowException) and error.error_code in _CODES
