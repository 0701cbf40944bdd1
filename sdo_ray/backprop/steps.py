"""How the denoiser is run: steps without a graph by a runner, which may be cheap; the kept step exactly."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any, Protocol

import torch

from sdo_ray.backprop.denoisers import denoisers_of
from sdo_ray.backprop.patches import replaced_call, replaced_step, restored_processors


class StepRunner(Protocol):
    """What runs the denoiser at steps without a graph: exactly, from a cache, by extrapolation, with a copy of it.

    A step is a step of the scheduler, 0 .. N-1 in the order of the call. It may take several denoiser calls (guidance
    by a call of its own, a second denoiser); they come in the same order at each step.
    """

    def sampling(self, num_steps: int, denoisers: Mapping[str, torch.nn.Module]) -> AbstractContextManager[None]:
        """Around a pipeline call of N = `num_steps` steps with these denoisers, by component name. What the runner puts
        into them, and what it remembers, is gone afterwards, also where an exception cut the call short."""
        ...

    def __call__(
        self, step: int, name: str, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """What the denoiser returns at a step without a graph, or what stands in for it. Runs under `torch.no_grad`.

        Args:
            step: 0 .. N-1.
            name: the denoiser's component name, such as "unet".
            forward: the denoiser's own call.
            args: of the call.
            kwargs: likewise.

        Returns:
            What `forward(*args, **kwargs)` returns, of the same type and shapes, with tensors of its own: the pipeline
            may write over them.
        """
        ...

    def exact(
        self, step: int, name: str, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """A kept step's call, `forward(*args, **kwargs)`, with whatever the runner has put into the denoiser without
        effect. The runner may look at what comes out, without its graph. Also for calls that the backward pass repeats,
        after the pipeline's call has ended."""
        ...


class ExactRunner:
    """Makes every call as the pipeline does. The default."""

    def sampling(self, num_steps: int, denoisers: Mapping[str, torch.nn.Module]) -> AbstractContextManager[None]:
        """Nothing to prepare."""
        return nullcontext()

    def __call__(
        self, step: int, name: str, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """The call itself."""
        return forward(*args, **kwargs)

    def exact(
        self, step: int, name: str, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Likewise."""
        return forward(*args, **kwargs)


@contextmanager
def run_by(runner: StepRunner, pipeline: Any, num_steps: int) -> Iterator[None]:
    """Within the block a plain call of `pipeline`, of N = `num_steps` steps, has all its steps run by `runner`.

    For images that nothing is learned from; the call is otherwise the pipeline's own, with its checks of images.
    """
    denoisers, scheduler = denoisers_of(pipeline), pipeline.scheduler
    step, stepped = 0, False

    def denoise(name: str, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        nonlocal step, stepped
        step, stepped = step + stepped, False
        return runner(step, name, forward, args, kwargs)

    def integrate(scheduler: Any, make: Callable[..., Any], bound: Any) -> Any:
        nonlocal stepped
        stepped = True
        return make(*bound.args, **bound.kwargs)

    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(runner.sampling(num_steps, denoisers))
        stack.enter_context(restored_processors(denoisers.values()))
        for name, module in denoisers.items():
            stack.enter_context(replaced_call(module, partial(denoise, name)))
        stack.callback(setattr, pipeline, "scheduler", scheduler)  # Some pipelines go on with a copy of it.
        stack.enter_context(replaced_step(scheduler, integrate))
        yield
