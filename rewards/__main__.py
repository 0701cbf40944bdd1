"""What rewards are: those that come with the package, or those named. None is imported.

python -m rewards [--table] [NAME or package.module:Class ...]

`--table` prints the table of docs/rewards.md.
"""

import sys
from collections.abc import Mapping, Sequence

from rewards.registry import built_in
from rewards.source import read_spec
from rewards.spec import RewardSpec


def main(arguments: Sequence[str]) -> int:
    """Print a paragraph or a row for each; returns the exit code."""
    names = [argument for argument in arguments if argument != "--table"]
    specs = {name: read_spec(built_in().get(name, name)) for name in names or built_in()}
    if "--table" in arguments:
        print(table({name: spec for name, spec in specs.items() if spec is not None}))
    else:
        for name, spec in specs.items():
            print(f"{name}\n  {'not found, or its source does not tell' if spec is None else _paragraph(spec)}")
    return int(None in specs.values())


def table(specs: Mapping[str, RewardSpec]) -> str:
    """Rewards as a table in Markdown, in the order of their names."""
    rows = [("name", "what its score is", "options", "use", "licence"), ("---",) * 5]
    for name, spec in sorted(specs.items()):
        options = ", ".join(f"`{key}`" for key in spec.options if key != "device")
        rows.append((f"`{name}`", spec.about.replace("|", "\\|"), options, _use(spec), spec.licence or "not said"))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _use(spec: RewardSpec) -> str:
    use = "held out: evaluates" if spec.heldout else "gradient" if spec.differentiable else "black box"
    return (
        f"{use}, {'' if spec.modality == 'image' else spec.modality}{'whole batches' if spec.batchwise else ''}".strip(
            ", "
        )
    )


def _paragraph(spec: RewardSpec) -> str:
    options = (name if option.default is None else f"{name}={option.default}" for name, option in spec.options.items())
    lines = {
        "": spec.about,
        "use": _use(spec),
        "options": ", ".join(options),
        "packages": str(spec.packages or ""),
        "licence": spec.licence or "not said",
    }
    return "\n  ".join(f"{key:<10}{line}" if key else line for key, line in lines.items() if line)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
