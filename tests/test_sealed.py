"""What travels through processes that have no use for it."""

import subprocess
import sys

import pytest

from sdo_ray.sealed import Sealed, made_there


def test_what_comes_out_is_what_went_in() -> None:
    value = {"a": [1, 2.0], "b": b"c"}
    assert Sealed.of(value).open() == value
    assert Sealed.of(value).open() is not value


class Doubler:
    def __call__(self, batch: int) -> int:
        return 2 * batch


def test_a_class_is_made_where_it_works_and_keeps_its_name() -> None:
    there = made_there("Doubler")
    assert there.__name__ == "Doubler"
    assert there(make=Sealed.of(Doubler))(3) == 6


def imports(module: str, heavy: str) -> bool:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, {module}; sys.exit({heavy!r} in sys.modules)"], timeout=60, check=False
    )
    return bool(done.returncode)


@pytest.mark.parametrize(
    "module",
    ["sdo_ray.training.arriving", "sdo_ray.training.channel", "sdo_ray.rollout.stream", "sdo_ray.rollout.watch"],
)
def test_what_only_passes_things_on_imports_no_torch(module: str) -> None:
    """A process of a run takes seconds longer to start with it."""
    assert not imports(module, "torch")


def test_what_finds_the_newest_checkpoint_imports_no_models() -> None:
    """Ray Train's controller does, before it starts the trainers."""
    assert not imports("sdo_ray.training.listing", "diffusers")
