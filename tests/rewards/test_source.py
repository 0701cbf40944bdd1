"""What a reward is, read from its source; nothing of it is imported."""

import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest

from rewards.registry import built_in, reward_class
from rewards.source import read_spec
from rewards.spec import Option, inspect_spec

CALL = "    def __call__(self, images, prompts): ...\n"


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes modules that cannot be imported."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(source: str, name: str = "no_driver_has_it") -> None:
        file = tmp_path / f"{name.replace('.', '/')}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"import packages_that_are_nowhere\nfrom typing import Literal\n{source}")

    yield write
    assert not {name for name in sys.modules if name.startswith("no_driver_has_it")}


@pytest.mark.parametrize("name", built_in())
def test_what_is_read_is_what_the_class_says(name: str) -> None:
    spec = inspect_spec(reward_class(name))
    assert read_spec(spec.path) == spec
    assert spec.licence
    assert spec.packages is None or spec.packages.is_file()


def test_a_file_of_the_package_is_found_with_all_it_takes() -> None:
    assert {"gram_style", "heldout_alignment", "jpeg_compressibility"} <= built_in().keys()
    assert not {"features", "mix", "registry", "service"} & built_in().keys(), "these are no rewards"


def test_reading_imports_nothing() -> None:
    code = (
        "import sys, rewards.__main__ as listing\n"
        "assert listing.main([]) == 0\n"
        "from rewards.registry import built_in\n"
        "sys.exit(any(f'rewards.{name}' in sys.modules for name in built_in()) or 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "heldout_alignment" in done.stdout


def test_options_are_read_with_types_and_defaults(written: Any) -> None:
    written(f'''
class Base:
    """Says what it is.

    At length.
    """
    differentiable = True
    packages = "needs.txt"
{CALL}
class Own(Base):
    licence: str = "MIT"
    def __init__(self, gain: "float", /, *rest, side: Literal["left", "right"] = "left", names: list[str] | None = None,
                 odd: packages_that_are_nowhere.Thing = packages_that_are_nowhere.THING, **more): ...
''')  # fmt: skip
    spec = read_spec("no_driver_has_it:Own")
    assert spec is not None
    assert (spec.about, spec.differentiable, spec.licence) == ("Says what it is.", True, "MIT")
    assert spec.packages is not None
    assert spec.packages.name == "needs.txt"
    assert spec.options == {
        "gain": Option(float, None),
        "side": Option(Literal["left", "right"], "'left'"),
        "names": Option(list[str] | None, "None"),
        "odd": Option(Any, "packages_that_are_nowhere.THING"),
    }


def test_no_package_on_the_way_is_imported(written: Any) -> None:
    written("", "no_driver_has_it_either.__init__")
    written(f"class Own:\n    differentiable = False\n{CALL}", "no_driver_has_it_either.own")
    assert read_spec("no_driver_has_it_either.own:Own") is not None


@pytest.mark.parametrize(
    "source",
    {
        "a computed attribute": f"class Own:\n    differentiable = packages_that_are_nowhere.YES\n{CALL}",
        "a conditional one": f"class Own:\n    if 1 < 2:\n        differentiable = True\n{CALL}",
        "a property": f"class Own:\n    @property\n    def differentiable(self): ...\n{CALL}",
        "of another type": f"class Own:\n    differentiable = 'yes'\n{CALL}",
        "a base from elsewhere": f"from nowhere import B\nclass Own(B):\n    differentiable = True\n{CALL}",
        "a base with a dot": f"class Own(packages_that_are_nowhere.B):\n    differentiable = True\n{CALL}",
        "two bases": f"class A: pass\nclass B: pass\nclass Own(A, B):\n    differentiable = True\n{CALL}",
        "a decorator": f"@packages_that_are_nowhere.change\nclass Own:\n    differentiable = True\n{CALL}",
        "a wrapped signature": f"class Own:\n    differentiable = True\n    @once\n    def __init__(self): ...\n{CALL}",
        "not callable": "class Own:\n    differentiable = True\n",
        "no attribute": f"class Own:\n    pass\n{CALL}",
        "made by a call": "Own = packages_that_are_nowhere.make()",
        "no class of this name": f"class Other:\n    differentiable = True\n{CALL}",
        "not Python": "class Own(",
    }.values(),
)  # fmt: skip
def test_what_the_text_does_not_tell_is_not_guessed(written: Any, source: str) -> None:
    written(source)
    assert read_spec("no_driver_has_it:Own") is None


@pytest.mark.parametrize("path", ["nowhere_at_all:Own", "rewards.nowhere:Own", "rewards.layout.deeper:Own", "sys:Own"])
def test_a_module_without_source_here(path: str) -> None:
    assert read_spec(path) is None


@pytest.mark.parametrize("environment", ["working_dir", "py_modules", "PYTHONPATH"])
def test_local_folders_of_an_environment_are_looked_through(tmp_path: Path, environment: str) -> None:
    (tmp_path / "in_its_folder.py").write_text(f"class Own:\n    differentiable = True\n    heldout = True\n{CALL}")
    given = {
        "working_dir": {"working_dir": str(tmp_path)},
        "py_modules": {"py_modules": [str(tmp_path / "in_its_folder.py")]},
        "PYTHONPATH": {"env_vars": {"PYTHONPATH": f"/nowhere:{tmp_path}"}},
    }
    assert read_spec("in_its_folder:Own") is None
    spec = read_spec("in_its_folder:Own", given[environment])
    assert spec is not None
    assert spec.heldout
