"""The same run gets the same name."""

import pytest

from sdo_ray.submission.identity import JobName

SETTINGS = {"run": {"name": "glossy-2.a"}, "training": {"updates": 3, "rate": 1e-3}}


def test_the_name_depends_on_command_run_and_settings_alone() -> None:
    name = JobName.of("align", SETTINGS, "file")
    again = JobName.of("align", {"training": {"rate": 0.001, "updates": 3}, "run": {"name": "glossy-2.a"}}, "other")
    assert name == again
    assert str(name).startswith("align-glossy-2.a-")
    changed = JobName.of("align", SETTINGS | {"training": {"updates": 4}}, "file")
    assert changed != name
    assert name.same_run(changed)
    assert not name.same_settings(changed)
    assert not name.same_run(JobName.of("evaluate", SETTINGS, "file"))
    assert JobName.of("pretrain", {"steps": 3}, "pretrain_emoji").name == "pretrain_emoji"


@pytest.mark.parametrize("run", ["a", "a-b", "a-0123abcd", "a-attempt-2", "x.y_z"])
@pytest.mark.parametrize("attempts", [0, 1, 11])
def test_ids_are_read_back(run: str, attempts: int) -> None:
    name = JobName.of("align", {"run": {"name": run}}, "file")
    for _ in range(attempts):
        name = name.next()
    assert name.attempt == attempts + 1
    assert JobName.parse(str(name)) == name


@pytest.mark.parametrize("foreign", [None, "", "raysubmit_4LamXRuQpYdSMg7J", "align-x", "align-x-0123abcd-attempt-"])
def test_other_ids_are_not_taken_for_ours(foreign: str | None) -> None:
    assert JobName.parse(foreign) is None
