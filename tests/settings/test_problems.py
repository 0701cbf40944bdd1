"""What is wrong, in parts, and how it is placed, gathered and shown."""

import pickle

import pytest

from sdo_ray.settings import Problem, Problems, SettingsError, under

PARTS = Problem("rate", "got 'x'", "a number above 0", "lower it")


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        (PARTS, "rate: got 'x'; a number above 0; lower it."),
        (Problem("rate", "missing", fix="give it"), "rate: missing; give it."),
        (Problem("", "'a.csv' does not exist"), "'a.csv' does not exist."),
        (
            Problem("a", "unknown", "there are b, c", "did you mean 'b'?"),
            "a: unknown; there are b, c; did you mean 'b'?",
        ),
        (Problem("a", "got 'b'; it says no more."), "a: got 'b'; it says no more."),
    ],
)
def test_one_line_a_problem(problem: Problem, line: str) -> None:
    assert str(problem) == line


def test_a_prefix_goes_in_front_of_the_setting_or_names_it() -> None:
    assert PARTS.under("training").setting == "training.rate"
    assert PARTS.under("training").under("align").setting == "align.training.rate"
    assert Problem("", "no").under("prompts.train").setting == "prompts.train"
    assert PARTS.under("") == PARTS


def test_the_error_shows_every_problem_and_survives_pickling() -> None:
    error = SettingsError(PARTS, "no such thing")
    assert str(error) == "rate: got 'x'; a number above 0; lower it.\nno such thing."
    assert str(error.under("a")) == "a.rate: got 'x'; a number above 0; lower it.\na: no such thing."
    again = pickle.loads(pickle.dumps(error))
    assert again.problems == error.problems
    assert again.problems[0].legal == "a number above 0"


def test_a_block_under_a_prefix() -> None:
    with pytest.raises(SettingsError) as refused, under("training"):
        raise SettingsError(PARTS)
    assert refused.value.problems == (PARTS.under("training"),)
    with pytest.raises(ZeroDivisionError), under("training"):
        1 / 0  # noqa: B018


def test_all_problems_at_once() -> None:
    reached = []

    def check() -> None:
        with Problems() as problems:
            with problems.of("a"):
                raise SettingsError(PARTS)
            assert problems
            problems.add(Problem("b", "no"))
            with problems.of():
                reached.append(True)
            raise SettingsError("the last")

    with pytest.raises(SettingsError) as refused:
        check()
    assert reached
    assert [str(problem) for problem in refused.value.problems] == [str(PARTS.under("a")), "b: no.", "the last."]


def test_nothing_is_refused_where_nothing_is_wrong() -> None:
    with Problems() as problems, problems.of("a"):
        pass
    assert not problems


def test_errors_of_other_kinds_are_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError), Problems() as problems, problems.of("a"):  # noqa: PT012
        problems.add(PARTS)
        1 / 0  # noqa: B018
