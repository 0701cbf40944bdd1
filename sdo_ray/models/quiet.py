"""Keep what libraries say about themselves off the user's screen."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Inside the block, diffusers and transformers show no loading bars and give no advice; errors still raise."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    before = [
        (library, library.get_verbosity(), library.is_progress_bar_enabled())
        for library in (diffusers_logging, transformers_logging)
    ]
    for library, *_ in before:
        library.set_verbosity_error()
        library.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            # That PEFT cannot round what is merged into rounded weights, which is not done here.
            warnings.filterwarnings("ignore", "TorchaoLoraLinear was instantiated")
            warnings.filterwarnings("ignore", "The `local_dir_use_symlinks` argument is deprecated")
            yield
    finally:
        for library, level, bars in before:
            library.set_verbosity(level)
            if bars:
                library.enable_progress_bar()
