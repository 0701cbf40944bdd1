"""The commands of `sdo`: what each is for, its settings, and where its code is."""

from __future__ import annotations

import ast
import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdo_ray.settings import Settings

IF_BROKEN = "once mended, "
SAME_COMMAND = f"{IF_BROKEN}the same command goes on from there."


@dataclass(frozen=True)
class Command:
    """One command. Everything is named by import path, so that the table imports nothing."""

    summary: str
    """A line for `sdo --help`."""
    module: str
    """Its driver: `job(settings)` does the work and returns the exit code, `check(settings)` is what it refuses before.
    Imported once the settings are read, as torch and Ray take seconds."""
    settings: str | None = None
    """`module:Class` of its settings file; None for a command without one."""
    own_line: bool = False
    """Whether `main(arguments)` of the module reads a command line with flags of its own."""
    kept: str = f"What is done is kept; {SAME_COMMAND}"
    """What is there still after the work was stopped, and what to do; empty for nothing to say."""

    def settings_class(self) -> type[Settings]:
        """The class of its settings file."""
        assert self.settings is not None
        module, _, name = self.settings.partition(":")
        kind: type[Settings] = getattr(importlib.import_module(module), name)
        return kind

    def driver(self) -> Any:
        """The imported module."""
        return importlib.import_module(self.module)

    def about(self) -> str:
        """The driver's docstring, without importing it."""
        spec = importlib.util.find_spec(self.module)
        assert spec is not None
        assert spec.origin is not None
        return ast.get_docstring(ast.parse(Path(spec.origin).read_text())) or ""


COMMANDS: dict[str, Command] = {
    "prepare": Command("clean a file of prompts, and hold some out", "pipelines.prepare", own_line=True, kept=""),
    "align": Command(
        "align a model with rewards",
        "pipelines.align",
        "sdo_ray.config.align:AlignSettings",
        kept=f"Its checkpoints are kept; {SAME_COMMAND}",
    ),
    "evaluate": Command(
        "compare models on held-out prompts, and make a page of it",
        "pipelines.evaluate",
        "sdo_ray.config.evaluate:EvaluateSettings",
        kept=f"Its images so far are kept; {SAME_COMMAND}",
    ),
    "promote": Command(
        "make an evaluated model the champion, if it passes the rules; or take it back",
        "pipelines.promote",
        "sdo_ray.promotion.settings:PromoteSettings",
        own_line=True,
        kept="Once mended, the same command tries again.",
    ),
    "cycle": Command(
        "prepare prompts, align, evaluate and promote, as one job",
        "pipelines.cycle",
        "sdo_ray.config.cycle:CycleSettings",
        kept=f"Its finished stages, and what the last one kept, are there; {SAME_COMMAND}",
    ),
    "fidelity": Command(
        "compare gradient estimators with full backpropagation",
        "pipelines.fidelity",
        "sdo_ray.config.fidelity:FidelityRunSettings",
        kept="Once mended, the same command starts anew.",
    ),
    "schedule": Command(
        "search which steps of a sampler to compute, and how to hold the others",
        "pipelines.schedule",
        "sdo_ray.config.schedule:ScheduleSettings",
        kept=f"What is measured is kept; {SAME_COMMAND}",
    ),
    "optimize": Command(
        "optimise single images against rewards, the model frozen",
        "pipelines.optimize",
        "sdo_ray.config.optimize:OptimizeSettings",
        kept=f"Finished rows are kept; {SAME_COMMAND}",
    ),
    "pretrain": Command(
        "train a small text-to-image model from a parquet of images and captions",
        "pipelines.pretrain",
        "sdo_ray.zoo.settings:PretrainSettings",
    ),
    "sample": Command("make images with a base or aligned model", "pipelines.sample", own_line=True, kept=""),
    "export": Command(
        "write a finished run's LoRA for diffusers, ComfyUI and others, or its model merged",
        "pipelines.export",
        own_line=True,
        kept="",
    ),
    "compose": Command(
        "put a base model together: adapters in its weights, another scheduler or autoencoder, learned words",
        "pipelines.compose",
        own_line=True,
        kept="",
    ),
    "submit": Command(
        "run a command as a job of a Ray cluster",
        "pipelines.submit",
        own_line=True,
        kept="A job that was submitted goes on; --follow attaches to it again, --stop stops it.",
    ),
    "check": Command(
        "check a settings file as its command would, and start nothing", "pipelines.check", own_line=True, kept=""
    ),
    "plan": Command("what a run of align needs of memory and time", "pipelines.plan", own_line=True, kept=""),
    "status": Command("the runs of a storage, and how far each is", "pipelines.status", own_line=True, kept=""),
    "doctor": Command(
        "check this machine and say how to mend what is found", "pipelines.doctor", own_line=True, kept=""
    ),
    "completion": Command("print what makes a shell complete these", "pipelines.completion", own_line=True, kept=""),
}
"""By name, in the order of the documentation."""

ALIASES = {"ls": "status"}
"""Other names of commands."""


def commands_with_settings() -> dict[str, type[Settings]]:
    """The commands that take a settings file, and the class of what is in it; imports them all."""
    return {name: command.settings_class() for name, command in COMMANDS.items() if command.settings}
