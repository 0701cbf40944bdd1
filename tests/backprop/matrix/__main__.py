"""Write the table of pipelines: `python -m tests.backprop.matrix docs/pipelines.md`."""

import inspect
import sys
from pathlib import Path

import diffusers
import torch

from .cases import CASES, REFUSED
from .check import Passed
from .run import run

HEAD = """# Pipelines

`sdo_ray/backprop` has no code per model. This table says what that was checked on, diffusers {version}: each class
built small from its own parts (`tests/backprop/matrix`), and run with every step kept in turn and with all steps kept.
*Work* means: pictures equal to the plain call's, to the bit; a graph in the kept step's denoiser calls only; a gradient
at the adapter from every step whose output has a direct weight; single steps adding up to all steps. Latents are
compared where a class decodes to numpy arrays, or makes no small pictures.

Written by `python -m tests.backprop.matrix docs/pipelines.md` (2 CPU cores, Xeon with AMX, 2026-11-21);
`pytest tests/backprop -m "slow or not slow"` checks the same.
"""


def others() -> list[str]:
    """Pipeline classes of diffusers without a case."""
    names = []
    for name in dir(diffusers):
        cls = getattr(diffusers, name, None) if name.endswith("Pipeline") else None
        if inspect.isclass(cls) and issubclass(cls, diffusers.DiffusionPipeline):
            names.append(name.removesuffix("Pipeline"))
    return sorted(set(names) - set(CASES) - {"Diffusion"})


def main(path: Path) -> None:
    """Run every case and write the table."""
    torch.set_num_threads(1)
    works, fails = [], []
    for name in sorted(CASES):
        try:
            works.append((name, run(name)))
        except Exception as error:
            fails.append((name, REFUSED.get(name, f"UNEXPECTED: {type(error).__name__}: {error}")))
        print(name, "fails" if fails and fails[-1][0] == name else "works", flush=True)
    lines = [HEAD.format(version=diffusers.__version__), f"## {len(works)} work", ""]
    lines += ["| pipeline | scheduler steps | returns |", "|---|---|---|"]
    lines += [f"| {name} | {row(name, passed)} |" for name, passed in works]
    lines += ["", f"## {len(fails)} do not", "", "| pipeline | why |", "|---|---|"]
    lines += [f"| {name} | {reason} |" for name, reason in fails]
    missing = others()
    lines += [
        "",
        f"## {len(missing)} not run",
        "",
        "No small build of these is written here, so nothing is claimed:",
        "",
    ]
    lines += [", ".join(missing) + "."]
    path.write_text("\n".join(lines) + "\n")


def row(name: str, passed: Passed) -> str:
    """Steps and shape, and whether it is of latents."""
    latents = " latents" if CASES[name].call.get("output_type") == "latent" else ""
    return f"{passed.steps} | {list(passed.shape)}{latents}"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
