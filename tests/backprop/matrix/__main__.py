"""Write the table of pipelines: `python -m tests.backprop.matrix docs/pipelines.md`.

With names of classes after the path it runs those only.
"""

import inspect
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import diffusers
import torch

from .cases import CASES, NOT_RUN, REFUSED
from .check import Passed
from .run import run

HEAD = """# Pipelines

`sdo_ray/backprop` has no code per model. This table says what that was checked on, diffusers {version}: each class
built small from its own parts (`tests/backprop/matrix`), and run with every step kept in turn and with all steps kept.
*Work* means: images equal to the plain call's, to the bit; a graph in the kept step's denoiser calls only; a gradient
at the adapter from every step whose output has a direct weight; single steps adding up to all steps. Latents are
compared where a class decodes to numpy arrays, or makes no small images.

Written by `python -m tests.backprop.matrix docs/pipelines.md` (2 CPU cores, Xeon with AMX, 2026-11-21), which with
names of classes runs those only and keeps the other rows. `pytest tests/backprop -m "slow or not slow"` checks the
same.
"""


def others() -> list[str]:
    """Pipeline classes of diffusers without a case."""
    names = []
    for name in dir(diffusers):
        cls = getattr(diffusers, name, None) if name.endswith("Pipeline") else None
        if inspect.isclass(cls) and issubclass(cls, diffusers.DiffusionPipeline):
            names.append(name.removesuffix("Pipeline"))
    return sorted(set(names) - set(CASES) - {"Diffusion"})


def main(path: Path, names: Sequence[str]) -> None:
    """Run the cases `names`, all if there are none, and write the table; it keeps its rows of the others."""
    torch.set_num_threads(1)
    rows = earlier(path) if names else {}
    for name in sorted(names or CASES):
        try:
            rows[name] = row(name, run(name))
        except Exception as error:
            expected = name in REFUSED and re.search(REFUSED[name].error, str(error))
            rows[name] = REFUSED[name].why if expected else f"UNEXPECTED: {type(error).__name__}: {error}"
        print(name, rows[name], flush=True)
    works = sorted(name for name, text in rows.items() if re.match(r"\d+ \| ", text))
    fails = set(rows) - set(works)
    lines = [HEAD.format(version=diffusers.__version__), f"## {len(works)} work", ""]
    lines += ["| pipeline | scheduler steps | returns |", "|---|---|---|"]
    lines += [f"| {name} | {rows[name]} |" for name in works]
    lines += ["", f"## {len(fails)} do not", "", "| pipeline | why |", "|---|---|"]
    lines += [f"| {name} | {rows[name]} |" for name in sorted(fails)]
    missing = others()
    lines += ["", f"## {len(missing)} not run", "", "| pipelines | why |", "|---|---|"]
    reasons = {reason: set(classes.split()) for reason, classes in NOT_RUN.items()}
    claimed = set().union(*reasons.values())
    reasons["no small build of these is written here, so nothing is claimed"] = set(missing) - claimed
    lines += [f"| {', '.join(sorted(classes))} | {reason} |" for reason, classes in reasons.items() if classes]
    path.write_text("\n".join(lines) + "\n")


def earlier(path: Path) -> dict[str, str]:
    """Rows of the table by class, of those that have a case."""
    found = re.findall(r"^\| (\w+) \| (.+) \|$", path.read_text(), re.MULTILINE)
    return {name: text for name, text in found if name in CASES}


def row(name: str, passed: Passed) -> str:
    """Steps and shape, and whether it is of latents."""
    latents = " latents" if CASES[name].call.get("output_type") == "latent" else ""
    return f"{passed.steps} | {list(passed.shape)}{latents}"


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
