"""A scorer behind HTTP, of any kind and in any language.

    POST url    {"images": [PNG in base64, ...], "prompts": ["...", ...]}    ->    {"scores": [0.7, null, ...]}

One score for each image, null where there is none. `python -m rewards.endpoints.server NAME` serves any reward so.
"""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from rewards.endpoints.client import BadAnswerError, Endpoint, as_png


class HttpScorer:
    """What a scorer behind HTTP says; missing, and never 0, where it does not answer or makes no sense.

    Args:
        url: where to post.
        batch_size: images in a request, at most.
        parallel: requests at once.
        timeout: seconds that an answer may take.
        retries: how often to ask again; after that the scores are missing.
        key_variable: environment variable with a key that is sent as a bearer token.

    Raises:
        ValueError: an address, a size or a time that cannot be. When scoring: the server refuses the request itself.
    """

    differentiable = False
    licence = "Apache-2.0"  # of what asks; what answers has its own

    def __init__(
        self,
        *,
        url: str,
        batch_size: int = 16,
        parallel: int = 4,
        timeout: float = 60.0,
        retries: int = 3,
        key_variable: str | None = None,
    ) -> None:
        if batch_size < 1 or parallel < 1:
            raise ValueError(f"batch_size and parallel must be 1 or more, got {batch_size} and {parallel}")
        self._endpoint = Endpoint(url, timeout, retries, key_variable)
        self._batch_size = batch_size
        self._pool = ThreadPoolExecutor(parallel)

    @classmethod
    def check_use(
        cls, prompts: Sequence[str], *, url: str, timeout: float = 60.0, retries: int = 3, **_: object
    ) -> None:
        """Refuse an address or times that cannot be; nothing is asked."""
        Endpoint(url, timeout, retries)

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores, float32 [B], of images, [B, 3, H, W] in [0, 1]; NaN where missing, as for non-finite pixels."""
        whole = images.flatten(1).isfinite().all(1).nonzero()[:, 0].tolist()
        batches = [whole[start : start + self._batch_size] for start in range(0, len(whole), self._batch_size)]
        scores = torch.full((len(images),), math.nan)
        for rows, found in zip(batches, self._ask_all(images, prompts, batches), strict=True):
            scores[rows] = found
        return scores.to(images.device)

    def _ask_all(self, images: Tensor, prompts: list[str], batches: list[list[int]]) -> Iterator[Tensor]:
        def ask(rows: list[int]) -> Tensor:
            body = {"images": [as_png(images[row]) for row in rows], "prompts": [prompts[row] for row in rows]}
            found = self._endpoint.ask(body, lambda answer: _scores(answer, len(rows)))
            return torch.full((len(rows),), math.nan) if found is None else torch.tensor(found)

        return self._pool.map(ask, batches)


def _scores(answer: Any, number: int) -> list[float]:
    """The scores of an answer, NaN for null."""
    scores = answer.get("scores") if isinstance(answer, dict) else None
    if not isinstance(scores, list) or len(scores) != number:
        raise BadAnswerError(f"the answer must have {number} scores")
    if not all(score is None or (isinstance(score, int | float) and not isinstance(score, bool)) for score in scores):
        raise BadAnswerError("a score is neither a number nor null")
    return [math.nan if score is None else float(score) for score in scores]
