"""Rewards by name: what there is, what each one is, and how to make one.

A built-in reward is a file of this package with a class of its name, `gram_style.py` with `GramStyle`. A reward of your
own is named by its import path, ``"package.module:Class"``, or registered under a name of its own with `register`.
What there is to know of a reward before it scores is its `RewardSpec`; one whose actor has an environment of its own,
with packages that may not be here, is never imported for it.
"""

import importlib
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from rewards.packages import missing_packages
from rewards.source import read_spec
from rewards.spec import RewardSpec, inspect_spec

if TYPE_CHECKING:
    from torch import Tensor


@runtime_checkable
class Reward(Protocol):
    """What a reward has to be. Any class of this shape is one; there is nothing to inherit from.

    Its keyword arguments are its options. What else a class may say of itself is in `RewardSpec`, as class attributes
    of the same names. Three more are optional. `weights_hash: str`, the sha256 of its weights, goes into the provenance
    of a run. A reward that computes on a device takes the option `device: str` and keeps it as its attribute `device`.
    A class method `check_use(prompts, **options)` raises ValueError for options or prompts that it cannot work with; it
    loads no weights.
    """

    differentiable: bool
    """Class attribute: whether the scores have a gradient with respect to the images."""

    def __call__(self, images: "Tensor", prompts: list[str], /) -> "Tensor":
        """Scores, float32 [B], higher is better, of images, float32 [B, 3, H, W] in [0, 1], or of what else it
        judges (see `rewards.modality`), each for its own prompt."""
        ...


_Class = TypeVar("_Class", bound=type)
_registered: dict[str, type] = {}


class RewardError(ValueError):
    """A reward or an option of one that does not exist or cannot be, with its parts for callers that name it otherwise.

    Attributes:
        field: what is wrong: `name`, `options.NAME`, or empty for the reward as a whole.
        got: what was given, in words.
        legal: what it may be, in words; may be empty.
        fix: what to do about it; may be empty.
    """

    def __init__(self, field: str, got: str, legal: str = "", fix: str = "") -> None:
        super().__init__(field, got, legal, fix)
        self.field, self.got, self.legal, self.fix = field, got, legal, fix

    def __str__(self) -> str:
        return "; ".join(part for part in (self.got, self.legal, self.fix) if part)


@cache
def built_in() -> Mapping[str, str]:
    """Name -> import path of the rewards that come with the package; nothing is imported to find them."""
    paths = {
        file.stem: f"{__package__}.{file.stem}:{file.stem.title().replace('_', '')}"
        for file in sorted(Path(__file__).parent.glob("*.py"))
    }
    return {name: path for name, path in paths.items() if read_spec(path) is not None}


def register(name: str) -> Callable[[_Class], _Class]:
    """Class decorator that makes a reward known as `name` wherever its module has been imported.

    Raises:
        RewardError: `name` belongs to another reward, or the class is no reward.
    """

    def decorate(cls: _Class) -> _Class:
        if name in built_in():
            raise RewardError("name", f"reward name {name!r} is taken by {built_in()[name]}", fix="choose another")
        taken = _registered.get(name)
        if taken is not None and _path_of(taken) != _path_of(cls):
            raise RewardError("name", f"reward name {name!r} is taken by {_path_of(taken)}", fix="choose another")
        _registered[name] = _checked_class(cls, name)
        return cls

    return decorate


def available() -> tuple[str, ...]:
    """Names of all rewards, built in and registered so far, sorted."""
    return tuple(sorted({*built_in(), *_registered}))


def create(name: str, /, **options: Any) -> Reward:
    """Make a reward, which loads its weights.

    Args:
        name: a name from `available()`, or an import path ``"package.module:Class"``.
        options: the reward's settings, the keyword arguments of its class; a text for an option that is a `Path`
            becomes one.

    Raises:
        RewardError: as `check` does.
    """
    check(name, options)
    cls = reward_class(name)
    return cls(**_converted(inspect_spec(cls), options))


def spec_of(name: str, environment: Mapping[str, Any] | None = None) -> RewardSpec | None:
    """What a reward is; loads no weights.

    Args:
        name: name or import path.
        environment: the Ray runtime environment of its actor, empty or None if it has none of its own. With one, the
            reward is not imported, and only its source is looked at.

    Returns:
        None if its actor has to be asked: it has an environment of its own, and its source is not here or is unclear.

    Raises:
        RewardError: there is no such reward, or it is none.
    """
    if environment and name not in _registered:
        return read_spec(_named(name), None if name in built_in() else environment)
    return inspect_spec(reward_class(name))


def check(
    name: str, options: Mapping[str, Any], prompts: Sequence[str] = (), environment: Mapping[str, Any] | None = None
) -> None:
    """Check a reward's name, its options' names and types, and that it can be used so, without loading any weights.

    Args:
        name: name or import path.
        options: its options.
        prompts: what it will be given, where that is known.
        environment: as for `spec_of`. What a reward with one can only say itself, its actor says when it starts.

    Raises:
        RewardError: the reward does not exist, lacks something a reward must have, has no such option, needs one that
            is not given, got one of another type, needs packages that are not installed, or refuses an option's value
            or a prompt.
    """
    spec = spec_of(name, environment)
    if spec is None:
        return
    _check_options(name, spec, options)
    if environment:
        return
    if spec.packages is not None and (missing := missing_packages(spec.packages)):
        raise RewardError(
            "",
            f"reward {name!r} needs packages that are not installed here: {_listed(missing)}",
            fix=f"pip install -r {spec.packages}, or give its actor an environment of its own, "
            f"`runtime_env: {{pip: {spec.packages}}}`",
        )
    if check_use := getattr(reward_class(name), "check_use", None):
        try:
            check_use(prompts, **_converted(spec, options))
        except ValueError as error:
            raise RewardError("", f"reward {name!r}: {error}") from None


def path_options(name: str) -> set[str]:
    """The options of a reward that are files, by any name that they have had; the reward is not imported."""
    spec = read_spec(built_in().get(name, name))
    if spec is None:
        return set()
    files = {key for key, option in spec.options.items() if option.is_path}
    return files | {old for old, key in spec.old_options.items() if key in files}


def rename_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options by the names that they have now, of those that earlier versions had; the reward is not imported.

    Raises:
        RewardError: one option is given by both names.
    """
    spec = read_spec(built_in().get(name, name))
    old = {} if spec is None else {key: spec.old_options[key] for key in options if key in spec.old_options}
    if twice := [f"{key} and {new}" for key, new in old.items() if new in options]:
        raise RewardError(
            "options", f"{_listed(twice)} are one option of reward {name!r}", fix="give it once, by its new name"
        )
    return {old.get(key, key): value for key, value in options.items()}


def import_path(name: str, environment: Mapping[str, Any] | None = None) -> str:
    """The ``"package.module:Class"`` of a reward, which, unlike a registered name, means the same in every process.

    Args:
        name: name or import path.
        environment: as for `spec_of`.

    Raises:
        RewardError: the class lies where other processes cannot import it, in a notebook, a script or a function.
    """
    if environment and name not in _registered:
        return _named(name)
    cls = reward_class(name)
    if cls.__module__ == "__main__" or "<locals>" in cls.__qualname__:
        raise RewardError(
            "name", f"reward {name!r} is {_path_of(cls)}, which no other process can import", fix="move it to a module"
        )
    return _path_of(cls)


def reward_class(name: str) -> type:
    """The class behind a name or an import path.

    Raises:
        RewardError: there is none, or it is no reward.
    """
    if name in _registered:
        return _registered[name]
    module_name, _, class_name = _named(name).partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        absent = error.name if isinstance(error, ModuleNotFoundError) else None
        if absent is not None and f"{module_name}.".startswith(f"{absent}."):
            if module_name.startswith("rewards."):
                fix = "`rewards` is the package of the built-in ones; give your own folder or file another name"
            else:
                fix = "put it beside the settings file, or its folder on PYTHONPATH, here and on the workers"
            raise RewardError("name", f"reward {name!r}: no module {absent!r}", fix=fix) from error
        raise RewardError(
            "name",
            f"reward {name!r}: its module cannot be imported here: {error}",
            fix="install what it needs, or give its actor an environment of its own, `runtime_env`",
        ) from error
    except Exception as error:  # whatever its own code does
        got = f"reward {name!r}: its module cannot be imported: {type(error).__name__}: {error}"
        raise RewardError("name", got, fix="mend it") from error
    if not hasattr(module, class_name):
        classes = [
            key for key, value in vars(module).items() if isinstance(value, type) and value.__module__ == module_name
        ]
        fix = "give your own module another name" if module_name == "rewards" else ""
        raise RewardError(
            "name",
            f"reward {name!r}: module {module_name!r} has no {class_name!r}",
            f"its classes are {_listed(classes)}",
            fix,
        )
    return _checked_class(getattr(module, class_name), name)


def _named(name: str) -> str:
    """The import path that a name stands for, which need not lead anywhere."""
    path = built_in().get(name, name)
    module_name, colon, class_name = path.partition(":")
    if not colon or not module_name or not class_name:
        close = get_close_matches(name, available(), n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise RewardError(
            "name",
            f"there is no reward {name!r}{hint}",
            f"there are {_listed(available())}, or an import path 'package.module:Class' to your own",
        )
    if "/" in module_name or module_name.endswith(".py"):
        stem = module_name.rpartition("/")[2].removesuffix(".py")
        fix = f"give '{stem}:{class_name}', with the file beside the settings file, or its folder on PYTHONPATH"
        raise RewardError("name", f"reward {name!r} names a file, and modules are named", fix=fix)
    return path


def _checked_class(cls: Any, name: str) -> type:
    if not isinstance(cls, type):
        raise RewardError(
            "name",
            f"reward {name!r} must be a class, got {cls!r}",
            fix="wrap a function in a class with __call__(images, prompts)",
        )
    if "__call__" not in dir(cls):
        raise RewardError(
            "name", f"reward {name!r}: class {cls.__name__} needs __call__(self, images, prompts) -> scores"
        )
    if not isinstance(getattr(cls, "differentiable", None), bool):
        raise RewardError(
            "name",
            f"reward {name!r}: class {cls.__name__} needs the class attribute `differentiable`: True if its scores "
            "have a gradient with respect to the images, else False",
        )
    try:
        inspect_spec(cls)
    except TypeError as error:
        raise RewardError("name", f"reward {name!r}: {error}") from None
    return cls


def _check_options(name: str, spec: RewardSpec, options: Mapping[str, Any]) -> None:
    for option, value in options.items():
        if option not in spec.options:
            raise RewardError(
                f"options.{option}", f"reward {name!r} has no option {option!r}", f"it has {_listed(spec.options)}"
            )
        annotation = spec.options[option].type
        if not _fits(value, annotation):
            wanted = getattr(annotation, "__name__", None) if isinstance(annotation, type) else str(annotation)
            raise RewardError(
                f"options.{option}",
                f"option {option!r} of reward {name!r} must be {wanted}, got {value!r} ({type(value).__name__})",
            )
    missing = [key for key, option in spec.options.items() if option.default is None and key not in options]
    if missing:
        raise RewardError(
            "options", f"reward {name!r} needs the option {_listed(missing)}", f"given: {_listed(options)}"
        )


def _converted(spec: RewardSpec, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as the class takes them: a text where a path is wanted becomes one."""
    return {
        key: Path(value).expanduser() if isinstance(value, str) and spec.options[key].is_path else value
        for key, value in options.items()
    }


def _fits(value: Any, annotation: Any) -> bool:
    """Whether a value, as YAML gives it, has the annotated type. A whole number fits float; a bool fits no number."""
    if annotation is Any:
        return True
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, part) for part in typing.get_args(annotation))
    if origin is typing.Literal:
        return value in typing.get_args(annotation)
    wanted = origin or annotation
    if not isinstance(wanted, type):
        return True
    if wanted is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if wanted is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if wanted is Path:
        return isinstance(value, str | Path)
    return isinstance(value, wanted)


def _path_of(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def _listed(names: Any) -> str:
    return ", ".join(names) or "none"
