"""YAML as it is taken for settings."""

import time

import pytest

from sdo_ray.config.strict_yaml import NotYaml, parse


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("010", 10),
        ("-3", -3),
        ("1:30", "1:30"),
        ("2026-11-21", "2026-11-21"),
        ("1_000", "1_000"),
        ("[.5, 2., -1.5E+3, .inf]", [0.5, 2.0, -1500.0, float("inf")]),
        ("true", True),
        ("yes", True),
        ("~", None),
        ('"🍎"', "🍎"),
        ("{a: &x {b: 1}, c: *x}", {"a": {"b": 1}, "c": {"b": 1}}),
        ("{a: &x {b: 1, c: 2}, d: {<<: *x, b: 3}}", {"a": {"b": 1, "c": 2}, "d": {"b": 3, "c": 2}}),
    ],
)
def test_values(text: str, value: object) -> None:
    assert parse(text) == value
    assert type(parse(text)) is type(value)


def test_a_key_twice_is_refused() -> None:
    """PyYAML takes the last: a second section at the end drops all of the first."""
    with pytest.raises(NotYaml, match=r"the key 'training' is there already, in line 1.*line 3"):
        parse("training: {updates: 3}\nrun: {}\ntraining: {learning_rate: 1}")
    with pytest.raises(NotYaml, match="the key 'a' is there already"):
        parse("x:\n  - {a: 1, a: 1}")


def test_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHT", "2026-11-21")
    monkeypatch.delenv("NOWHERE", raising=False)
    assert parse("{name: 'n-${oc.env:NIGHT}', other: ['${oc.env:NOWHERE,runs}'], plain: $NIGHT}") == {
        "name": "n-2026-11-21",
        "other": ["runs"],
        "plain": "$NIGHT",
    }
    with pytest.raises(NotYaml, match="there is no variable NOWHERE in the environment"):
        parse("storage: ${oc.env:NOWHERE}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("&a [*a]", "an alias names what it is"),
        ("[" * 3000, "nested too deep"),
        ("[" * 200 + "]" * 200, "nested too deep"),
        ("a: b: c", "mapping values"),
    ],
)
def test_what_cannot_be_read_is_said_in_a_line(text: str, said: str) -> None:
    with pytest.raises(NotYaml, match=said) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


def test_aliases_of_aliases_take_no_time() -> None:
    """Seven levels of nine are five million sections, written out."""
    levels = ["a0: &a0 [x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    start = time.monotonic()
    from sdo_ray.secrets import refuse_secrets

    refuse_secrets(parse("\n".join(levels)))
    assert time.monotonic() - start < 2
