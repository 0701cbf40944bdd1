"""The model card: what it is, how to load it, how it was made, what its rewards' licences are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from rewards.modality import Modality
from rewards.provenance import is_noncommercial
from sdo_ray.models.reference import parse

_OUTPUTS: Mapping[Modality, str] = {"video": "frames", "audio": "audios"}
"""Where diffusers' pipelines return what they make, if not in `images`."""


@dataclass(frozen=True)
class RewardLine:
    """A reward that was learned from."""

    key: str
    weight: float
    licence: str | None
    """SPDX expression; None: it does not say."""


@dataclass(frozen=True)
class CardFacts:
    """What the card says."""

    name: str
    base: str
    """Reference of the base model."""
    on_hub: bool
    """Whether that is a hub id."""
    pipeline: str
    """Class of the pipeline."""
    sampling: Mapping[str, Any]
    """Arguments of the pipeline's call, but for the prompt."""
    recipe: Mapping[str, Any]
    """What was set, by name."""
    rewards: Sequence[RewardLine]
    results: str
    """The closing comparison, as a table for a terminal."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Format -> name of its file or directory here."""
    trigger: str | None = None
    """Words that prompts are to have; None: it works with any."""
    images: str | None = None
    """Name of a file with images before and after."""
    readers: str = "ComfyUI, A1111 or Forge"
    """Programs that read the file in Kohya's format."""
    absent: Sequence[str] = ()
    """Components that the model is saved without."""
    modality: Modality = "image"
    """What it makes."""


def model_card(facts: CardFacts) -> str:
    """The card as Markdown, with the head that the hub reads."""
    head: dict[str, Any] = {
        "library_name": "diffusers",
        "tags": [*(["lora"] if "diffusers" in facts.files else []), "sdo-ray", "reward-alignment"],
    }
    if facts.on_hub:
        head["base_model"] = parse(facts.base).base
    if facts.trigger is not None:
        head["instance_prompt"] = facts.trigger
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---",
        f"# {facts.name}",
        f"`{facts.base}`, aligned with rewards by sdo-ray.",
    ]
    if facts.images is not None:
        parts.append(f"![before and after]({facts.images})")
    trigger = f"Prompts have to have `{facts.trigger}` in them." if facts.trigger else "It needs no trigger word."
    parts += ["## Use", trigger, *_use(facts)]
    parts += ["## How it was made", _table(("setting", "value"), facts.recipe.items())]
    rewards = [(line.key, f"{line.weight:g}", line.licence or "not said") for line in facts.rewards]
    parts += [
        "## Rewards",
        _table(("reward", "weight", "licence of its code and weights"), rewards),
        *_noncommercial(facts.rewards),
        "The base model's own licence holds for this model too.",
        "## On held-out prompts",
        f"```\n{facts.results}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _noncommercial(rewards: Sequence[RewardLine]) -> list[str]:
    found = [f"`{line.key}` ({line.licence})" for line in rewards if is_noncommercial(line.licence)]
    if not found:
        return []
    return [f"**Commercial use is forbidden by the licence of {' and '.join(found)}**, perhaps of this model too."]


def _use(facts: CardFacts) -> list[str]:
    call = "".join(f", {name}={value!r}" for name, value in facts.sampling.items())
    reference = parse(facts.base)
    given = {"revision": reference.revision, "variant": reference.variant}
    named = "".join(f', {name}="{value}"' for name, value in given.items() if value is not None)
    absent = "".join(f", {name}=None" for name in facts.absent)  # diffusers would miss them
    base = json.dumps(reference.base if facts.on_hub else "BASE") + named + absent
    made = _OUTPUTS.get(facts.modality, "images")
    said = (
        [] if facts.on_hub else [f"`BASE` is where `{facts.base}` lies; of a `zoo://` model, `base_model` of the run."]
    )
    if "diffusers" in facts.files:
        said.append(
            f"""With diffusers:

```python
from diffusers import {facts.pipeline}

pipe = {facts.pipeline}.from_pretrained({base})
pipe.load_lora_weights(".", weight_name="{facts.files["diffusers"]}")
{facts.modality} = pipe("..."{call}).{made}[0]
```"""
        )
    if "kohya" in facts.files:
        said.append(f"With {facts.readers}: `{facts.files['kohya']}`, among their LoRAs, at strength 1.")
    if "merged" in facts.files:
        said.append(
            f"""As a complete model:

```python
pipe = {facts.pipeline}.from_pretrained("{facts.files["merged"]}"{absent})
{facts.modality} = pipe("..."{call}).{made}[0]
```"""
        )
    return said


def _table(names: Sequence[str], rows: Any) -> str:
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text.replace("|", "\\|")
