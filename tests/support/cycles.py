"""A small cycle on a tiny model."""

from pathlib import Path
from typing import Any

import yaml

from tests.support.runs import tiny_settings

MODEL = "tiny-aligned"
INK, SMOOTH = "tests.support.ink:Ink", "tests.support.ink:Smoothness"


def tiny_cycle(directory: Path, base: Path, *rules: str, ink: float = 1.0, **sections: dict[str, Any]) -> Path:
    """The settings file of a cycle of two updates in `directory`, with those of its stages beside it.

    Args:
        directory: where everything goes.
        base: a tiny model.
        rules: of the promotion.
        ink: the weight of the reward for dark images; negative, and they become light.
        sections: changes to the cycle's own settings.
    """
    align = tiny_settings(
        directory,
        base,
        rewards={"terms": [{"name": INK, "weight": ink}]},
        training={"updates": 2, "learning_rate": 0.05},
        trainers={"count": 1},
        tracking={"register_as": MODEL},
    )
    evaluate = {
        "run": {"name": "-"},
        "models": {"base": str(base), "candidate": "-"},
        "prompts": {"heldout": "-", "num_prompts": 6},
        "sampling": {"num_inference_steps": 4, "guidance_scale": 2.0},
        "rewards": [{"name": INK}, {"name": SMOOTH}],
        "features": None,
        "samplers": {"count": 1, "batch_size": 3},
    }
    promote = {
        "evaluation": {"name": "-"},
        "promotion": {"model": MODEL, "rules": list(rules), "lock_seconds": 30.0},
    }
    (directory / "raw.txt").write_text("\n".join(f"thing {i}" for i in range(60)))
    cycle: dict[str, Any] = {
        "run": {"name": "first", "storage": str(directory / "runs"), "seed": 3},
        "prompts": {"source": "raw.txt", "heldout": 0.3},
        "align": {"config": align.name},
        "evaluate": {"config": "evaluate.yaml"},
        "promote": {"config": "promote.yaml"},
    }
    for section, changes in sections.items():
        cycle[section] = cycle.get(section, {}) | changes
    for name, settings in (("evaluate", evaluate), ("promote", promote), ("cycle", cycle)):
        (directory / f"{name}.yaml").write_text(yaml.safe_dump(settings))
    return directory / "cycle.yaml"
