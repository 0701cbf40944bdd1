"""Settings of the preparation of prompts."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from sdo_ray.settings import Settings, SettingsPath


class PreparationSettings(Settings):
    """From raw prompts to clean ones, split for training and for judging."""

    source: SettingsPath = Field(
        description="File of the raw prompts: .parquet, .csv, .tsv, .json, .jsonl or .txt, or a directory of parquet "
        "files. Relative paths start at the settings file."
    )
    column: str = Field(
        "prompt", description="The column that holds them; that of a .txt, with a prompt a line, is `prompt`."
    )
    category: str | None = Field(None, description="The column with their categories, kept for numbers by category.")
    min_words: int = Field(1, ge=1, description="Shorter prompts are dropped.")
    max_words: int = Field(60, ge=1, description="Longer ones too.")
    max_characters: int = Field(
        1000, ge=1, description="And those with more characters, which is the measure where words have no spaces."
    )
    blocked: list[str] = Field(
        default=[],
        description="Words and phrases; prompts that contain one are dropped: as whole words, in the plural too, "
        "however written (docs/cycle.md).",
    )
    duplicates: Literal["text", "words"] = Field(
        "text",
        description="What makes two prompts one: the same text but for case, or the same words in any order, by which "
        "'a red cube on a blue sphere' is 'a blue cube on a red sphere', and 'C++' is 'C'.",
    )
    heldout: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="Share of the prompts kept for judging. A prompt's own text decides its side, so it stays there "
        "whatever is added to the source later, and its duplicates are never on the other.",
    )
    apart_from: SettingsPath | None = Field(
        None,
        description="File of prompts that are held out already, with the same column; those of the source that are "
        "also in it are dropped. Relative paths start at the settings file.",
    )

    @model_validator(mode="after")
    def _some_length(self) -> Self:
        if self.min_words > self.max_words:
            raise ValueError(f"min_words {self.min_words} is more than max_words {self.max_words}; no prompt is both")
        return self
