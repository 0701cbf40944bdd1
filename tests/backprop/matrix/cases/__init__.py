"""The pipelines, by family; a family is a file, which registers its classes in `CASES`.

All pass the checks but those in `REFUSED`; the kept calls of those in `STAYS` cannot travel.
"""

from . import audio, image_transformers, kandinsky, others, stable_diffusion, video
from .case import CASES, Case
from .reasons import NOT_RUN, REFUSED, STAYS

__all__ = [
    "CASES",
    "NOT_RUN",
    "REFUSED",
    "STAYS",
    "Case",
    "audio",
    "image_transformers",
    "kandinsky",
    "others",
    "stable_diffusion",
    "video",
]
