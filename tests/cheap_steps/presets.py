"""Write which cheap steps apply to which pipeline: `python -m tests.cheap_steps.presets docs/cheap-steps-pipelines.md`.

With names of classes after the path it runs those only, and keeps the other rows.
"""

from __future__ import annotations

import copy
import inspect
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import torch

from sdo_ray.backprop import TraceError, run_by
from sdo_ray.backprop.denoisers import denoisers_of
from sdo_ray.cheap_steps.choose import choose_runner
from sdo_ray.cheap_steps.settings import CacheSettings, CopySettings
from sdo_ray.settings import SettingsError
from tests.backprop.matrix.assemble import assemble, inputs
from tests.backprop.matrix.cases import CASES, REFUSED
from tests.backprop.matrix.check import adapt

OURS: dict[str, dict[str, Any]] = {
    "taylor": {"cache": {"name": "taylor", "every": 2, "last": 0}},
    "cg-taylor": {"cache": {"name": "cg-taylor", "every": 2, "last": 0}},
    "guidance": {"cache": {"name": "guidance", "every": 2, "last": 0}},
    "deepcache": {"cache": {"name": "deepcache", "every": 2, "last": 0}},
    "faster-diffusion": {"cache": {"name": "faster-diffusion", "every": 2, "last": 0}},
    "fast copy": {"fast_copy": {"dtype": "bfloat16"}},
}
SKIPPED = {"spatial_attention_block_skip_range": 2, "spatial_attention_timestep_skip_range": [-1, 1001]}
DIFFUSERS: dict[str, dict[str, Any]] = {
    "taylorseer": {"cache_interval": 2, "disable_cache_before_step": 1},
    "pab": SKIPPED,
    "first-block": {"threshold": 10.0},
    "mag-cache": {"mag_ratios": [1.0, 1.0], "threshold": 10.0, "retention_ratio": 0.1},
    "faster-cache": {"spatial_attention_block_skip_range": 2, "tensor_format": "BCHW"},
}
LAYERS = ("num_layers", "num_single_layers", "n_layers", "num_visual_blocks")
YES, NO, FAILS = "yes", "", "fails"

HEAD = """# Cheap steps by pipeline

Which of the ways of [cheap steps](cheap-steps.md) each pipeline class takes, diffusers {version}: each class built
small from its own parts (`tests/backprop/matrix`) with two blocks at least and a LoRA, and called once with the way
switched on. *yes*: it runs, with a sample of the plain call's shape. Empty: it is refused by name, before or at the
first call. *fails*: diffusers' cache is switched on and then raises in its own code, or the pipeline looks at what its
denoiser did at a step that was held. `modules` takes whatever modules a model has, and `small` any model with a smaller
sibling, so they have no column. What a way costs and how near it comes is a matter of the trained model: `sdo fidelity`
and `sdo schedule` measure it.

Written by `python -m tests.cheap_steps.presets docs/cheap-steps-pipelines.md` (2026-11-26), which with names of classes
runs those only and keeps the other rows; `pytest tests/cheap_steps/test_presets.py -m "slow or not slow"` checks it.
"""


def row(name: str) -> list[str]:
    """A class's answer to each way, in the order of `OURS` and `DIFFUSERS`."""
    pipe = assemble(f"{name}Pipeline", CASES[name].parts)
    _deepen(pipe)
    adapt(pipe)
    arguments = inputs(pipe, CASES[name].call)
    seeded = "generator" in inspect.signature(type(pipe).__call__).parameters
    steps = arguments.get("num_inference_steps", 2)

    def call() -> Any:
        torch.manual_seed(2)
        given = copy.deepcopy(arguments)
        return pipe(**given | ({"generator": torch.Generator().manual_seed(3)} if seeded else {}))[0]

    shape = _shape(call())
    made = [partial(_ours, pipe, way, steps, call) for way in OURS.values()]
    made += [partial(_cached, pipe, cache, options, steps, call) for cache, options in DIFFUSERS.items()]
    return [_answer(work, shape) for work in made]


def _deepen(pipe: Any) -> None:
    """Give denoisers of one block a second, without which there is nothing that a first block could stand for."""
    for name, denoiser in denoisers_of(pipe).items():
        config = dict(getattr(denoiser, "config", {}))
        single: dict[str, Any] = {key: 2 for key in LAYERS if config.get(key) == 1}
        if "llama_layers" in config:  # what each layer is given of a text encoder's
            single["llama_layers"] = [layer for layer in config["llama_layers"] for _ in range(2)]
        kind: Any = type(denoiser)
        if single and hasattr(kind, "from_config"):
            pipe.register_modules(**{name: kind.from_config(config | single)})


def _ours(pipe: Any, way: dict[str, Any], steps: int, call: Callable[[], Any]) -> Any:
    cache, fast = way.get("cache"), way.get("fast_copy")
    runner = choose_runner(
        pipe, cache and CacheSettings.model_validate(cache), fast and CopySettings.model_validate(fast), steps
    )
    with nullcontext() if runner is None else run_by(runner, pipe, steps):
        return call()


def _cached(pipe: Any, name: str, options: dict[str, Any], steps: int, call: Callable[[], Any]) -> Any:
    try:
        choose_runner(pipe, CacheSettings(name=name, options=options), None, steps)
        return call()
    finally:
        for denoiser in denoisers_of(pipe).values():
            if getattr(denoiser, "is_cache_enabled", False):
                denoiser.disable_cache()


def _answer(work: Callable[[], Any], shape: Any) -> str:
    try:
        return YES if _shape(work()) == shape else FAILS
    except (SettingsError, TraceError):
        return NO
    except Exception:
        return FAILS


def _shape(made: Any) -> Any:
    return [_shape(x) for x in made] if isinstance(made, list | tuple) else getattr(made, "shape", type(made))


def earlier(path: Path) -> dict[str, list[str]]:
    """The rows of the page, by class."""
    found = re.findall(r"^\| (\w+) \|(.*)\|$", path.read_text(), re.MULTILINE)
    return {name: [cell.strip() for cell in cells.split("|")] for name, cells in found if name in CASES}


def main(path: Path, names: Sequence[str]) -> None:
    """Run the classes `names`, all if there are none, and write the page."""
    torch.set_num_threads(1)
    rows = earlier(path) if path.exists() else {}
    for name in sorted(names or set(CASES) - set(REFUSED)):
        try:
            rows[name] = row(name)
        except Exception as error:
            print(f"{name} cannot be called as it is: {error}", file=sys.stderr, flush=True)
            continue
        print(name, rows[name], flush=True)
        path.write_text(page(rows))


def page(rows: dict[str, list[str]]) -> str:
    """The page, with the rows that there are."""
    ways = [*OURS, *DIFFUSERS]
    counts = [sum(answers[place] == YES for answers in rows.values()) for place in range(len(ways))]
    lines = [HEAD.format(version=diffusers.__version__), f"| pipeline | {' | '.join(f'`{way}`' for way in ways)} |"]
    lines += ["|---" * (len(ways) + 1) + "|", f"| of {len(rows)} | {' | '.join(map(str, counts))} |"]
    lines += [f"| {name} | {' | '.join(rows[name])} |" for name in sorted(rows)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
