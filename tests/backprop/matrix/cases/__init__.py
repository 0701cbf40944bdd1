"""The pipelines, by family; a family is a file, which registers its classes in `CASES`.

All pass the checks but those in `REFUSED`.
"""

from . import image_transformers, kandinsky, others, stable_diffusion, video
from .case import CASES, Case
from .reasons import REFUSED

__all__ = ["CASES", "REFUSED", "Case", "image_transformers", "kandinsky", "others", "stable_diffusion", "video"]
