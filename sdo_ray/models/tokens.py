"""How much of a prompt a model reads: text encoders take so many tokens, and pipelines cut what is longer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sdo_ray.models.load import ZOO, component_class, component_entries, load_index, reading, resolve
from sdo_ray.models.quiet import quiet_libraries
from sdo_ray.models.reference import parse
from sdo_ray.zoo.text import load_tokenizer

_NO_LIMIT = 100_000
"""What tokenizers without a limit say is more."""


def tokenizers_of(base: str) -> dict[str, Any]:
    """A base model's tokenizers by component name.

    Raises:
        SettingsError: they cannot be read.
    """
    if base.startswith(ZOO):
        return {"tokenizer": load_tokenizer()}
    found, how = {}, parse(base).of_configurations
    for name, (library, kind) in component_entries(load_index(base)).items():
        if name.startswith("tokenizer") and library is not None and kind is not None:
            with quiet_libraries(), reading(base):
                found[name] = component_class(library, kind).from_pretrained(resolve(base), subfolder=name, **how)
    return found


def said_of(base: str, given: Mapping[str, Sequence[str]]) -> list[str]:
    """What a base model does not read of its prompts, a line a setting.

    Args:
        base: its reference.
        given: setting -> the prompts that it names.

    Raises:
        SettingsError: see `tokenizers_of`.
    """
    tokenizers = tokenizers_of(base)
    return [f"{setting}: {said}" for setting, prompts in given.items() if (said := what_is_cut(tokenizers, prompts))]


def what_is_cut(tokenizers: Mapping[str, Any], prompts: Sequence[str]) -> str | None:
    """What to say of prompts that are longer than a model reads, counted by the tokenizer that reads most.

    Args:
        tokenizers: by component name, or a pipeline's components.
        prompts: what it will be given.

    Returns:
        None if none is.
    """
    limits = {
        name: (int(part.model_max_length), part)
        for name, part in tokenizers.items()
        if name.startswith("tokenizer") and hasattr(part, "model_max_length")
    }
    if not limits or not prompts:
        return None
    most, tokenizer = max(limits.values(), key=lambda entry: entry[0])
    if most > _NO_LIMIT:
        return None
    with quiet_libraries():
        lengths = [len(ids) for ids in tokenizer(list(prompts), truncation=False)["input_ids"]]
    over = [place for place, length in enumerate(lengths) if length > most]
    if not over:
        return None
    longest = max(over, key=lambda place: lengths[place])
    return (
        f"{len(over)} of {len(prompts)} are longer than the {most} tokens that the model reads; of the longest, with "
        f"{lengths[longest]}, it does not see {_unseen(tokenizer, prompts[longest], most)!r}"
    )


def _unseen(tokenizer: Any, prompt: str, most: int) -> str:
    """The end of a prompt, as far as its tokens tell it."""
    ids = tokenizer(prompt, truncation=False, add_special_tokens=False)["input_ids"]
    added = len(tokenizer(prompt, truncation=False)["input_ids"]) - len(ids)
    text = " ".join(tokenizer.decode(ids[most - added :]).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
