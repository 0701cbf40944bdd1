"""YAML as people mean it: 1.2's numbers, no dates, no key twice, and `${oc.env:NAME}` from the environment."""

from __future__ import annotations

import os
import re
from typing import Any

import yaml

MAX_DEPTH = 100
"""Sections and lists inside one another; settings have some five."""

_ENVIRONMENT = re.compile(r"\$\{oc\.env:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?:,(?P<otherwise>[^}]*))?\}")


class NotYaml(ValueError):
    """What was read is not YAML, or not as it is taken here; the message is one line."""


def parse(text: str) -> Any:
    """The value of a document.

    Numbers are YAML 1.2's, in which `010` is ten, `1:30` a text and `1e-4` a number; dates are texts. `${oc.env:NAME}`
    in a text is the variable of the environment, and `${oc.env:NAME,OTHERWISE}` what stands there if it is not set
    (OmegaConf's notation).

    Raises:
        NotYaml: it cannot be read, has a key twice, holds itself, is nested too deep, or names a variable that is
            not set.
    """
    try:
        document = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise NotYaml(" ".join(str(error).split())) from None
    except RecursionError:
        raise NotYaml("it is nested too deep") from None
    return _resolved(document, (), {})


class _Loader(yaml.SafeLoader):
    """Refuses a key twice: PyYAML takes the last, and drops the settings of a whole section in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, yaml.Mark] = {}
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str | int | float | bool):
                if key in seen:
                    raise yaml.constructor.ConstructorError(
                        f"the key {key!r} is there already, in line {seen[key].line + 1}",
                        None,
                        "and once more",
                        key_node.start_mark,
                    )
                seen[key] = key_node.start_mark
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


def _take_numbers_of_yaml_1_2() -> None:
    taken = {"tag:yaml.org,2002:int", "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp"}
    _Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in taken]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    number = r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
    add = _Loader.add_implicit_resolver
    add("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789"))
    add("tag:yaml.org,2002:float", re.compile(rf"^({number})$"), list("-+.0123456789"))
    _Loader.add_constructor("tag:yaml.org,2002:int", _int)
    _Loader.add_constructor("tag:yaml.org,2002:float", _float)


def _int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    return int(str(loader.construct_scalar(node)))


def _float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    text = str(loader.construct_scalar(node)).lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


_take_numbers_of_yaml_1_2()


def _resolved(value: Any, inside: tuple[int, ...], done: dict[int, Any]) -> Any:
    """Texts with their variables; what is named twice by an alias is resolved once."""
    if isinstance(value, str):
        return _ENVIRONMENT.sub(_variable, value)
    if not isinstance(value, dict | list):
        return value
    if id(value) in inside:
        raise NotYaml("an alias names what it is inside of")
    if len(inside) > MAX_DEPTH:
        raise NotYaml("it is nested too deep")
    if id(value) not in done:
        inside = (*inside, id(value))
        done[id(value)] = (
            {key: _resolved(inner, inside, done) for key, inner in value.items()}
            if isinstance(value, dict)
            else [_resolved(inner, inside, done) for inner in value]
        )
    return done[id(value)]


def _variable(found: re.Match[str]) -> str:
    text = os.environ.get(found["name"], found["otherwise"])
    if text is None:
        raise NotYaml(f"{found[0]}: there is no variable {found['name']} in the environment")
    return text
