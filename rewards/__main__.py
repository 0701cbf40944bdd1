"""What rewards are: those that come with the package, or those named. None is imported.

python -m rewards [NAME or package.module:Class ...]
"""

import sys
from collections.abc import Sequence

from rewards.registry import built_in
from rewards.source import read_spec
from rewards.spec import RewardSpec


def main(names: Sequence[str]) -> int:
    """Print a paragraph for each; returns the exit code."""
    specs = {name: read_spec(built_in().get(name, name)) for name in names or built_in()}
    for name, spec in specs.items():
        print(f"{name}\n  {'not found, or its source does not tell' if spec is None else _paragraph(spec)}")
    return int(None in specs.values())


def _paragraph(spec: RewardSpec) -> str:
    options = (name if option.default is None else f"{name}={option.default}" for name, option in spec.options.items())
    use = "held out: evaluates" if spec.heldout else "teaches" if spec.differentiable else "no gradient: is watched"
    lines = {
        "": spec.about,
        "use": use,
        "options": ", ".join(options),
        "packages": str(spec.packages or ""),
        "licence": spec.licence or "not said",
    }
    return "\n  ".join(f"{key:<10}{line}" if key else line for key, line in lines.items() if line)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
