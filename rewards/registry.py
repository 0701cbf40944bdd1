"""Rewards by name: what there is, what each one's options are, and how to make one.

Built-in rewards are a table of import paths, so that looking at the list imports nothing. A reward of your own is
named by its import path, ``"package.module:Class"``, or registered under a name of its own with `register`.
"""

import importlib
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

BUILT_IN: Mapping[str, str] = {
    "alignment": "rewards.alignment:Alignment",
    "classification": "rewards.classification:Classification",
    "gram_style": "rewards.gram_style:GramStyle",
    "heldout_alignment": "rewards.heldout_alignment:HeldoutAlignment",
    "heldout_preference": "rewards.heldout_preference:HeldoutPreference",
    "jpeg_compressibility": "rewards.jpeg_compressibility:JpegCompressibility",
    "layout": "rewards.layout:Layout",
    "preference": "rewards.preference:Preference",
}
"""Name -> import path of the rewards that come with the package."""


@runtime_checkable
class Reward(Protocol):
    """What a reward has to be. Any class of this shape is one; there is nothing to inherit from.

    Four attributes are optional. `weights_hash: str`, the sha256 of its weights, goes into the provenance of a run.
    `heldout = True` on the class says that the reward is an evaluator, never to be trained on. A reward that computes
    on a device takes the option `device: str` and keeps it as its attribute `device`. A class method
    `check_use(prompts, **options)` raises ValueError for options or prompts that it cannot work with; it loads no
    weights.
    """

    differentiable: bool
    """Class attribute: whether the scores have a gradient with respect to the images."""

    def __call__(self, images: "Tensor", prompts: list[str]) -> "Tensor":
        """Scores, float32 [B], higher is better, of images, float32 [B, 3, H, W] in [0, 1], each for its own prompt."""
        ...


_Class = TypeVar("_Class", bound=type)
_registered: dict[str, type] = {}


class RewardError(ValueError):
    """A reward or an option of one that does not exist or cannot be."""


def register(name: str) -> Callable[[_Class], _Class]:
    """Class decorator that makes a reward known as `name` wherever its module has been imported.

    Raises:
        RewardError: `name` belongs to another reward, or the class is no reward.
    """

    def decorate(cls: _Class) -> _Class:
        if name in BUILT_IN:
            raise RewardError(f"reward name {name!r} is taken by {BUILT_IN[name]}; choose another")
        taken = _registered.get(name)
        if taken is not None and _path_of(taken) != _path_of(cls):
            raise RewardError(f"reward name {name!r} is taken by {_path_of(taken)}; choose another")
        _registered[name] = _checked_class(cls, name)
        return cls

    return decorate


def available() -> tuple[str, ...]:
    """Names of all rewards, built in and registered so far, sorted."""
    return tuple(sorted({*BUILT_IN, *_registered}))


def create(name: str, /, **options: Any) -> Reward:
    """Make a reward, which loads its weights.

    Args:
        name: a name from `available()`, or an import path ``"package.module:Class"``.
        options: the reward's settings, the keyword arguments of its class.

    Raises:
        RewardError: as `check` does.
    """
    check(name, options)
    return reward_class(name)(**options)


def check(name: str, options: Mapping[str, Any], prompts: Sequence[str] = ()) -> None:
    """Check a reward's name, its options' names and types, and that it can be used so, without loading any weights.

    Args:
        name: name or import path.
        options: its options.
        prompts: what it will be given, where that is known.

    Raises:
        RewardError: the reward does not exist, lacks something a reward must have, has no such option, needs one that
            is not given, got one of another type, or refuses an option's value or a prompt.
    """
    legal = _parameters(name)
    for option, value in options.items():
        if option not in legal:
            raise RewardError(f"reward {name!r} has no option {option!r}; it has {_listed(legal)}")
        annotation = legal[option].annotation
        if not _fits(value, annotation):
            wanted = getattr(annotation, "__name__", None) if isinstance(annotation, type) else str(annotation)
            raise RewardError(
                f"option {option!r} of reward {name!r} must be {wanted}, got {value!r} ({type(value).__name__})"
            )
    missing = [
        option for option, parameter in legal.items() if parameter.default is parameter.empty and option not in options
    ]
    if missing:
        raise RewardError(f"reward {name!r} needs the option {_listed(missing)}; given: {_listed(options)}")
    if check_use := getattr(reward_class(name), "check_use", None):
        try:
            check_use(prompts, **options)
        except ValueError as error:
            raise RewardError(f"reward {name!r}: {error}") from None


def is_heldout(name: str) -> bool:
    """Whether the reward is an evaluator that training must never see. Loads no weights."""
    return bool(getattr(reward_class(name), "heldout", False))


def option_names(name: str) -> tuple[str, ...]:
    """Names of a reward's options. Loads no weights."""
    return tuple(_parameters(name))


def import_path(name: str) -> str:
    """The ``"package.module:Class"`` of a reward, which, unlike a registered name, means the same in every process.

    Raises:
        RewardError: the class lies where other processes cannot import it, in a notebook, a script or a function.
    """
    cls = reward_class(name)
    if cls.__module__ == "__main__" or "<locals>" in cls.__qualname__:
        raise RewardError(f"reward {name!r} is {_path_of(cls)}, which no other process can import; move it to a module")
    return _path_of(cls)


def reward_class(name: str) -> type:
    """The class behind a name or an import path.

    Raises:
        RewardError: there is none, or it is no reward.
    """
    if name in _registered:
        return _registered[name]
    path = BUILT_IN.get(name, name)
    module_name, colon, class_name = path.partition(":")
    if not colon or not module_name or not class_name:
        close = get_close_matches(name, available(), n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise RewardError(
            f"there is no reward {name!r}{hint}; there are {_listed(available())}, or an import path "
            "'package.module:Class' to your own"
        )
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there and misses something itself
        raise RewardError(
            f"reward {name!r}: no module {error.name!r}; is its folder on PYTHONPATH, here and on the workers?"
        ) from error
    if not hasattr(module, class_name):
        classes = [
            key for key, value in vars(module).items() if isinstance(value, type) and value.__module__ == module_name
        ]
        raise RewardError(
            f"reward {name!r}: module {module_name!r} has no {class_name!r}; its classes are {_listed(classes)}"
        )
    return _checked_class(getattr(module, class_name), name)


def _checked_class(cls: Any, name: str) -> type:
    if not isinstance(cls, type):
        raise RewardError(
            f"reward {name!r} must be a class, got {cls!r}; wrap a function in a class with __call__(images, prompts)"
        )
    if "__call__" not in dir(cls):
        raise RewardError(f"reward {name!r}: class {cls.__name__} needs __call__(self, images, prompts) -> scores")
    if not isinstance(getattr(cls, "differentiable", None), bool):
        raise RewardError(
            f"reward {name!r}: class {cls.__name__} needs the class attribute `differentiable`: True if its scores "
            "have a gradient with respect to the images, else False"
        )
    return cls


def _parameters(name: str) -> dict[str, inspect.Parameter]:
    """A reward's options: the keyword arguments of its class, with their annotations evaluated."""
    cls = reward_class(name)
    if cls.__init__ is object.__init__:  # type: ignore[misc]
        return {}
    hints = typing.get_type_hints(cls.__init__)  # type: ignore[misc]
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]  # type: ignore[misc]
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {p.name: p.replace(annotation=hints.get(p.name, Any)) for p in parameters if p.kind not in variadic}


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
    return isinstance(value, wanted)


def _path_of(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def _listed(names: Any) -> str:
    return ", ".join(names) or "none"
