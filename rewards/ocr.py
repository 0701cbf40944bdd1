"""Does the image have the text that its prompt puts in quotes: optical character recognition, as Flow-GRPO rewards it.

Liu et al., 2505.05470. Recognition is by RapidOCR, which brings PP-OCR's weights.

    score = 1 if the wanted text is part of what is read, else 1 - min(d, n) / n

with Levenshtein's distance d of the two, n the length of the wanted one; blanks and capitals do not count.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from rewards.towers.one_by_one import score_each


class Ocr:
    """How much of the text in a prompt's first pair of double quotes is read in the image, from 0 to 1."""

    differentiable = False
    packages = "envs/ocr.txt"
    licence = "Apache-2.0"

    def __init__(self) -> None:
        from rapidocr import RapidOCR

        self._read: Any = RapidOCR(params={"Global.log_level": "error"})

    @classmethod
    def check_use(cls, prompts: Sequence[str]) -> None:
        """Refuse prompts without a text in quotes."""
        if without := [prompt for prompt in prompts if not wanted_text(prompt)]:
            raise ValueError(
                f'a prompt needs a text in double quotes to look for, such as a sign that says "open"; '
                f"{len(without)} have none, the first is {without[0]!r}"
            )

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores, float32 [B], of images, [B, 3, H, W] in [0, 1]; NaN for a prompt without quotes or a broken image."""
        return score_each(images, prompts, self._score)

    def _score(self, pixels: np.ndarray, prompt: str) -> float | None:
        if not (wanted := wanted_text(prompt)):
            return None
        found = self._read(np.ascontiguousarray(pixels[..., ::-1]))  # as OpenCV has them: blue first
        return agreement(wanted, _plain("".join(found.txts or ())))


def wanted_text(prompt: str) -> str:
    """What stands in the first pair of double quotes, without blanks and capitals; empty if nothing does."""
    quoted = re.search(r'["“](.+?)["”]', prompt)
    return "" if quoted is None else _plain(quoted.group(1))


def agreement(wanted: str, found: str) -> float:
    """The score, of texts without blanks and capitals."""
    if wanted in found:
        return 1.0
    return 1 - min(_distance(wanted, found), len(wanted)) / len(wanted)


def _plain(text: str) -> str:
    return "".join(text.split()).lower()


def _distance(a: str, b: str) -> int:
    """Levenshtein's: insertions, deletions and replacements that make b of a."""
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (letter != other))
    return row[-1]
