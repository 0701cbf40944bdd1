"""A vision-language model behind an endpoint as OpenAI has it (vLLM, SGLang, hosted ones), asked for a score.

UnifiedReward (2503.05236), for one, is served by vLLM and ends its answer with "Final Score: x".
"""

import math
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from rewards.endpoints.client import BadAnswerError, Endpoint, as_png


class VisionEndpoint:
    """The number that a vision-language model answers with; missing, and never 0, where none can be read.

    Args:
        url: of the endpoint, such as "http://localhost:8000/v1/chat/completions".
        model: its name there.
        template: what is asked; "{prompt}" in it becomes the prompt.
        pattern: regular expression with one group, the number; the last place in the answer where it fits counts.
        low: of the scale; an answer below it is none.
        high: of the scale; an answer above it is none.
        max_tokens: of the answer.
        parallel: requests at once; each has one image.
        timeout: seconds that an answer may take.
        retries: how often to ask again; after that the score is missing.
        key_variable: environment variable with the key.

    Raises:
        ValueError: an option that cannot be. When scoring: the server refuses the request itself.
    """

    differentiable = False
    licence = "Apache-2.0"  # of what asks; what answers has its own

    def __init__(
        self,
        *,
        url: str,
        model: str,
        template: str,
        pattern: str = r"[Ss]core\W*(-?\d+(?:\.\d+)?)",
        low: float = 1.0,
        high: float = 5.0,
        max_tokens: int = 512,
        parallel: int = 8,
        timeout: float = 120.0,
        retries: int = 3,
        key_variable: str | None = None,
    ) -> None:
        self.check_use((), url=url, template=template, pattern=pattern, low=low, high=high)
        self._endpoint = Endpoint(url, timeout, retries, key_variable)
        self._request = {"model": model, "max_tokens": max_tokens, "temperature": 0}
        self._template, self._pattern = template, re.compile(pattern)
        self._low, self._high = low, high
        self._pool = ThreadPoolExecutor(parallel)

    @classmethod
    def check_use(
        cls,
        prompts: Sequence[str],
        *,
        url: str,
        template: str,
        pattern: str = "()",
        low: float = 1.0,
        high: float = 5.0,
        **_: object,
    ) -> None:
        """Refuse an address, a template, a pattern or a scale that cannot be; nothing is asked."""
        Endpoint(url, 1.0, 0)
        if "{prompt}" not in template:
            raise ValueError(f"option 'template' must have {{prompt}} in it, got {template!r}")
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"option 'pattern' is no regular expression: {error}") from None
        if groups != 1:
            raise ValueError(f"option 'pattern' must have one group, the number; it has {groups}")
        if low >= high:
            raise ValueError(f"option 'low' must be below 'high', got {low} and {high}")

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores, float32 [B], of images, [B, 3, H, W] in [0, 1]; NaN where missing, as for non-finite pixels."""
        return torch.tensor(list(self._pool.map(self._ask, images, prompts)), device=images.device)

    def _ask(self, image: Tensor, prompt: str) -> float:
        if not image.isfinite().all():
            return math.nan
        content = [
            {"type": "text", "text": self._template.replace("{prompt}", prompt)},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{as_png(image)}"}},
        ]
        text = self._endpoint.ask({**self._request, "messages": [{"role": "user", "content": content}]}, _text)
        return math.nan if text is None else self._parsed(text)

    def _parsed(self, text: str) -> float:
        found = self._pattern.findall(text)
        try:
            value = float(found[-1]) if found else math.nan
        except ValueError:
            return math.nan
        return value if self._low <= value <= self._high else math.nan


def _text(answer: Any) -> str:
    """The text of a chat completion."""
    try:
        text = answer["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        raise BadAnswerError(f"this is no chat completion: {str(answer)[:100]}") from None
    if not isinstance(text, str):
        raise BadAnswerError("the answer has no text")
    return text
