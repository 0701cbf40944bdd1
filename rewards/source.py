"""The spec of a reward from its source: nothing of it is imported, so its packages need not be here.

What cannot be told for certain from the text alone (an attribute that is computed, a base class from elsewhere, a
decorator that changes the class) is not guessed: there is no spec then, and whoever can import the class has to say.
"""

import ast
import importlib.util
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import GenericAlias
from typing import Any, Literal, Union

from rewards.spec import ATTRIBUTES, Option, RewardSpec, make_spec

_TYPES: Mapping[str, Any] = {
    kind.__name__: kind
    for kind in (bool, int, float, str, list, dict, tuple, set, Path, Collection, Iterable, Mapping, Sequence)
}
_NOTHING_TO_KNOW = {"object", "ABC", "Protocol"}
"""Base classes that have none of a reward's attributes."""


class _Unclear(Exception):
    """The text alone does not tell."""


@dataclass(frozen=True)
class _Class:
    """What a class has, with what it inherits."""

    docstring: str | None
    attributes: Mapping[str, Any]
    packages_from: str | None
    init: ast.FunctionDef | None
    is_callable: bool


def read_spec(path: str, environment: Mapping[str, Any] | None = None) -> RewardSpec | None:
    """The spec of a reward, as far as its source is on this machine and says it.

    Args:
        path: "package.module:Class".
        environment: the Ray runtime environment of its actor; local folders in it are looked through first.

    Returns:
        None if the source is not found, or does not tell for certain.
    """
    module, _, name = path.partition(":")
    try:
        found = _read_class(module, name, _folders(environment or {}))
        if "differentiable" not in found.attributes or not found.is_callable:
            return None
        options = {} if found.init is None else _options(found.init.args)
        return make_spec(path, found.docstring, options, found.attributes, found.packages_from)
    except (_Unclear, TypeError, ValueError, SyntaxError):
        return None


def _folders(environment: Mapping[str, Any]) -> list[str]:
    """Folders on this machine in which the processes of a Ray runtime environment look for modules."""
    variables = environment.get("env_vars") or {}
    places = [
        environment.get("working_dir"),
        *(Path(module).parent for module in environment.get("py_modules") or () if isinstance(module, str)),
        *str(variables.get("PYTHONPATH", "")).split(":"),
    ]
    return [str(place) for place in places if place and Path(place).is_dir()]


def _read_class(module: str, name: str, folders: Sequence[str]) -> _Class:
    found = _find(module, folders)
    source = getattr(found.loader, "get_source", lambda _: None)(module)
    body = ast.parse(source or "").body
    node = next((part for part in reversed(body) if isinstance(part, ast.ClassDef) and part.name == name), None)
    if node is None or node.keywords or not all(map(_registers, node.decorator_list)):
        raise _Unclear
    bases = [base for base in node.bases if ast.unparse(base).rpartition(".")[2] not in _NOTHING_TO_KNOW]
    if len(bases) > 1:
        raise _Unclear
    inherited = [_read_class(*_place_of(base, module, body), folders) for base in bases]
    parent = inherited[0] if inherited else _Class(None, {}, None, None, False)
    own = dict(_attributes(node.body))
    return _Class(
        docstring=ast.get_docstring(node) or parent.docstring,
        attributes={**parent.attributes, **own},
        packages_from=found.origin if "packages" in own else parent.packages_from,
        init=next((part for part in node.body if _is_function(part, "__init__")), parent.init),  # type: ignore[arg-type]
        is_callable=parent.is_callable or any(_is_function(part, "__call__") for part in node.body),
    )


def _find(module: str, folders: Sequence[str]) -> ModuleSpec:
    """Where a module is. Unlike `importlib.util.find_spec` for a module in a package, this imports no package."""
    top, *rest = module.split(".")
    try:
        # This package is the one that runs, whatever else is called so. The last knows packages that are installed for
        # editing, too.
        places = [] if top == __package__ else [*folders, *sys.path]
        found = PathFinder.find_spec(top, places) or importlib.util.find_spec(top)
    except (ImportError, ValueError):
        raise _Unclear from None
    name = top
    for part in rest:
        name = f"{name}.{part}"
        found = found and PathFinder.find_spec(name, found.submodule_search_locations or [])
    if found is None:
        raise _Unclear
    return found


def _registers(decorator: ast.expr) -> bool:
    """`@register("name")` leaves the class as it is."""
    return isinstance(decorator, ast.Call) and ast.unparse(decorator.func).rpartition(".")[2] == "register"


def _place_of(base: ast.expr, module: str, body: Sequence[ast.stmt]) -> tuple[str, str]:
    """Module and name of a base class that its own module defines, or imports from another by an absolute name."""
    if not isinstance(base, ast.Name):
        raise _Unclear
    for part in body:
        if isinstance(part, ast.ClassDef) and part.name == base.id:
            return module, base.id
        if isinstance(part, ast.ImportFrom) and part.module is not None and part.level == 0:
            for alias in part.names:
                if (alias.asname or alias.name) == base.id:
                    return part.module, alias.name
    raise _Unclear


def _attributes(body: Sequence[ast.stmt]) -> Iterator[tuple[str, Any]]:
    """Those of `ATTRIBUTES` that the body of a class assigns."""
    for part in body:
        match part:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ):
                if name in ATTRIBUTES:
                    yield name, ast.literal_eval(value)
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                if name in ATTRIBUTES:
                    raise _Unclear
            case ast.AnnAssign() | ast.Pass() | ast.Expr() | ast.AsyncFunctionDef():
                pass
            case _:
                raise _Unclear


def _is_function(part: ast.stmt, name: str) -> bool:
    if not isinstance(part, ast.FunctionDef) or part.name != name:
        return False
    if part.decorator_list:
        raise _Unclear
    return True


def _options(arguments: ast.arguments) -> dict[str, Option]:
    positional = [*arguments.posonlyargs, *arguments.args][1:]  # the first is self
    without: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults))
    pairs = [
        *zip(positional, [*without, *arguments.defaults], strict=True),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]
    return {
        argument.arg: Option(_type(argument.annotation), None if default is None else ast.unparse(default))
        for argument, default in pairs
    }


def _type(annotation: ast.expr | None) -> Any:
    """An annotation made of plain types; `Any` if it has others."""
    match annotation:
        case ast.Constant(value=None):
            return type(None)
        case ast.Constant(value=str(text)):  # an annotation in quotes
            return _type(ast.parse(text, mode="eval").body)
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return _TYPES.get(name, Any)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _union(left, right)
        case ast.Subscript(value=ast.Name(id=name) | ast.Attribute(attr=name), slice=inner):
            parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            match name:
                case "Literal":
                    return Literal[tuple(ast.literal_eval(part) for part in parts)]
                case "Optional":
                    return _union(*parts, ast.Constant(None))
                case "Union":
                    return _union(*parts)
            return GenericAlias(_TYPES[name], tuple(map(_type, parts))) if name in _TYPES else Any
    return Any


def _union(*parts: ast.expr) -> Any:
    return Union[tuple(map(_type, parts))]  # noqa: UP007, made of values
