"""Standing in for parts of a pipeline during one call: the mechanics behind `trace`, with no diffusion in them."""

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from sdo_ray.backprop.tensors import detach_attributes

_NO_GRAD = torch.no_grad()(lambda: None).__code__
"""What any function decorated with `torch.no_grad` runs."""


def replace_call(module: torch.nn.Module, around: Callable[..., Any]) -> Callable[[], None]:
    """From now on calls of `module` go to `around(call, args, kwargs)`, with `call` what they were.

    All of the call: the module's forward hooks, a `forward` that offloading or a cache has put on the instance, and
    what `module.compile()` made of it. A copy of the module is called as it was. Returns what undoes it.
    """
    # Where `torch.nn.Module.compile` puts the compiled call. A `forward` would be inside that, to be compiled with it.
    before = vars(module).get("_compiled_call_impl")
    call = before or module._call_impl

    def replacement(*args: Any, **kwargs: Any) -> Any:
        return around(call, args, kwargs)

    def undo() -> None:
        if before is None:
            del vars(module)["_compiled_call_impl"]
        else:
            vars(module)["_compiled_call_impl"] = before

    # By `vars`, because the wrapper that `torch.compile(module)` makes passes attributes on to what it wraps.
    vars(module)["_compiled_call_impl"] = replacement
    return undo


@contextmanager
def replaced_call(module: torch.nn.Module, around: Callable[..., Any]) -> Iterator[None]:
    """Within the block, calls of `module` are those of `replace_call`."""
    undo = replace_call(module, around)
    try:
        yield
    finally:
        undo()


@contextmanager
def replaced_method(thing: Any, name: str, around: Callable[..., Any]) -> Iterator[None]:
    """Within the block, `thing.name(...)` goes to `around(method, args, kwargs)`, with `method` what it was."""
    before, method = vars(thing).get(name), getattr(thing, name)

    def replacement(*args: Any, **kwargs: Any) -> Any:
        return around(method, args, kwargs)

    vars(thing)[name] = replacement
    try:
        yield
    finally:
        if before is None:
            del vars(thing)[name]
        else:
            vars(thing)[name] = before


@contextmanager
def replaced_step(scheduler: Any, around: Callable[..., Any]) -> Iterator[None]:
    """Within the block, `scheduler.step` goes to `around(scheduler, step, bound arguments)`.

    Also for copies made of the scheduler within the block, which arrive as themselves. Afterwards the scheduler holds
    no graph: multistep ones remember past outputs.
    """
    step = type(scheduler).step
    signature = inspect.signature(step)

    # The signature stays: pipelines read it to decide what to pass, a `generator` among others.
    @functools.wraps(step)
    def replacement(self: Any, *args: Any, **kwargs: Any) -> Any:
        return around(self, step, signature.bind(self, *args, **kwargs))

    try:
        with subclassed(scheduler, step=replacement):
            yield
    finally:
        detach_attributes(scheduler)


def attention_processors(module: torch.nn.Module) -> list[tuple[Any, Any]]:
    """The parts of `module` that have an attention processor, with it; a pipeline may put others in for its call."""
    return [(part, part.processor) for part in module.modules() if hasattr(part, "processor")]


@contextmanager
def restored_processors(modules: Iterable[torch.nn.Module]) -> Iterator[None]:
    """After the block, all have their attention processors of before, also where an exception cut a call short."""
    before = [found for module in modules for found in attention_processors(module)]
    try:
        yield
    finally:
        for part, processor in before:
            if part.processor is not processor:
                part.set_processor(processor)


@contextmanager
def undecorated(pipeline: Any) -> Iterator[None]:
    """Within the block, `pipeline`'s `__call__` runs without decorators, and other methods without `torch.no_grad`."""
    cls = type(pipeline)
    methods = dict(inspect.getmembers(cls, inspect.isfunction))
    without_grad = {name: inspect.unwrap(m) for name, m in methods.items() if m.__code__ is _NO_GRAD}
    with subclassed(pipeline, **without_grad | {"__call__": inspect.unwrap(cls.__call__)}):
        yield


@contextmanager
def subclassed(thing: Any, **methods: Any) -> Iterator[None]:
    """Within the block, `thing` is of a subclass of its class, of the same name, that has `methods`.

    The subclass is equal to the class: some pipelines compare classes rather than ask for instances.
    """
    cls = type(thing)
    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    equal = {"__eq__": lambda self, other: other is self or other is cls, "__hash__": lambda _: hash(cls)}
    thing.__class__ = type("Equal", (type(cls),), equal)(cls.__name__, (cls,), {**names, **methods})
    try:
        yield
    finally:
        thing.__class__ = cls
