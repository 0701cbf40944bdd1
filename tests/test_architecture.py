"""No arrow points up, none goes in a circle, and what a notebook or a GPU box needs alone imports no Ray or MLflow."""

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]

FLOORS = (
    {"__main__"},
    {"pipelines"},
    {"sizing"},
    {"dry_batch", "notebook"},
    {"config", "doctor"},
    {"promotion"},
    {"registry", "input_optimization", "run_page", "export", "step_search"},
    {"evaluation", "fidelity", "training"},
    {"rollout"},
    {"cheap_steps", "media"},
    {"models", "cluster", "blocks", "submission", "prompts", "cycle", "driver", "tracking", "policy_gradient"},
    {"backprop", "zoo", "storage", "rewards", "secrets"},
    {"settings", "seeds", "exit_codes", "interrupts", "own_packages", "sealed"},
)
"""The rooms from top to bottom: each imports from floors below its own only. A new room needs a place here."""

CLUSTER_PACKAGES = {"ray", "mlflow", "deepspeed"}
ALONE = {
    "backprop",
    "cheap_steps",
    "policy_gradient",
    "models",
    "media",
    "zoo",
    "rewards",
    "settings",
    "storage",
    "secrets",
    "seeds",
    "exit_codes",
    "interrupts",
    "own_packages",
}
"""Rooms that never import `CLUSTER_PACKAGES`."""


def room_of(module: str) -> str | None:
    """The room that a dotted name of this project leads to; None for other packages and for `sdo_ray` itself."""
    top, _, rest = module.partition(".")
    if top in ("pipelines", "rewards"):
        return top
    return (rest.partition(".")[0] or None) if top == "sdo_ray" else None


def imports(file: Path) -> set[str]:
    """Every name that a file imports, inside functions and for types too: `a.b` and `a.b.c` for `from a.b import c`."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import; name the whole path"
            assert node.module is not None
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def module_of(file: Path) -> str:
    """The dotted name of a file; of `__init__.py`, its package's."""
    return ".".join(file.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


SOURCES = [file for top in ("sdo_ray", "rewards", "pipelines") for file in sorted((REPOSITORY / top).rglob("*.py"))]
FILES = {file: room for file in SOURCES if (room := room_of(module_of(file))) is not None}

DOCUMENTED = (REPOSITORY / "docs/architecture.md").read_text().partition("## Rooms")[2].partition("\n## ")[0]
"""The page's listing of the rooms."""


def floor(room: str) -> int:
    for number, rooms in enumerate(FLOORS):
        if room in rooms:
            return number
    pytest.fail(f"the room {room!r} has no floor in FLOORS; give it one")


def test_no_arrow_points_up() -> None:
    wrong = [
        f"{file.relative_to(REPOSITORY)} ({room}) imports {name} ({other})"
        for file, room in FILES.items()
        for name in sorted(imports(file))
        if (other := room_of(name)) not in (None, room) and floor(other) <= floor(room)
    ]
    assert not wrong, "\n".join(wrong)


def test_some_rooms_know_nothing_of_others() -> None:
    for file, room in FILES.items():
        names = imports(file)
        others = {other for name in names if (other := room_of(name)) not in (None, room)}
        if room == "rewards":
            assert not {name for name in names if name.partition(".")[0] == "sdo_ray"}, file
        if room == "backprop":
            assert not others, file
        if room == "evaluation":
            assert "mlflow" not in {name.partition(".")[0] for name in names}, file
        if room == "models":
            assert others <= {"backprop", "zoo", "settings"}, file


def test_no_files_import_one_another_in_a_circle() -> None:
    """Inside functions and for types too: whoever reads one file of a circle has to read them all."""
    names = {module_of(file): file for file in SOURCES}
    graph = {}
    for name, file in names.items():
        found = imports(file)
        # `from package import module` names the module, and needs the package no more than any import of it does.
        packages = {other.rpartition(".")[0] for other in found if other in names}
        graph[name] = {other for other in found - packages if other in names} - {name}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail("a circle: " + " <- ".join(error.args[1]))


def test_rooms_that_stand_alone_import_no_cluster() -> None:
    for file, room in FILES.items():
        if room in ALONE and file.name != "service.py":
            assert not {name.partition(".")[0] for name in imports(file)} & CLUSTER_PACKAGES, file


def test_what_stands_alone_is_imported_without_a_cluster_package() -> None:
    """Neither directly nor by what it imports in turn: all of it, in a process that has nothing yet."""
    alone = [module_of(file) for file, room in FILES.items() if room in ALONE and file.name != "service.py"]
    # This one is a script that MLflow runs; the others' `__main__` would parse a command line.
    modules = [name for name in alone if not name.endswith("__main__")]
    code = f"""
import importlib, sys
for name in {modules}:
    importlib.import_module(name)
    if found := {CLUSTER_PACKAGES} & sys.modules.keys():
        sys.exit(f"{{name}} brings {{', '.join(sorted(found))}}")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr


def test_the_architecture_page_lists_every_room() -> None:
    rooms = set(FILES.values())
    listed = set(re.findall(r"^ *(?:sdo_ray/)?(\w+)/? {2,}", DOCUMENTED, re.MULTILINE))
    assert listed - {"infra"} == rooms


def test_the_estimators_take_torch_and_diffusers_only() -> None:
    for file, room in FILES.items():
        if room == "backprop":
            packages = {name.partition(".")[0] for name in imports(file)} - sys.stdlib_module_names
            assert packages <= {"torch", "diffusers", "sdo_ray"}, file


def test_a_notebook_gets_no_ray_or_mlflow() -> None:
    code = """
import sys
from sdo_ray import Aligner, differentiable_sample, make_plan
import sdo_ray.models.adapter_file, sdo_ray.models.export, sdo_ray.zoo
import rewards, rewards.mix, rewards.scoring
for name in rewards.available():
    rewards.registry.reward_class(name)
print(*({"ray", "mlflow", "deepspeed"} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert done.stdout.strip() == ""
