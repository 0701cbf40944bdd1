"""How the denoiser is run: steps without a graph by a runner, which may be cheap; the kept step exactly."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol


class StepRunner(Protocol):
    """What runs the denoiser at steps without a graph: exactly, from a cache, by extrapolation, with a copy of it.

    A step is a step of the scheduler, 0 .. N-1 in the order of the call. It may take several denoiser calls (guidance
    by a call of its own, a second denoiser); they come in the same order at each step.
    """

    def begin(self, num_steps: int) -> None:
        """A pipeline call of N = `num_steps` steps begins; whatever is left of an earlier call, also one that an
        exception cut short, no longer counts."""
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

    def exact(self) -> AbstractContextManager[None]:
        """Within it a kept step calls the denoiser, not through the runner: whatever the runner has put into the
        denoiser is without effect there, but for forward hooks on the denoiser, by which it may see what the step
        computes. Entered anew for each call, also for one that the backward pass repeats."""
        ...


class ExactRunner:
    """Makes every call as the pipeline does. The default."""

    def begin(self, num_steps: int) -> None:
        """Nothing to prepare."""

    def __call__(
        self, step: int, name: str, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """The call itself."""
        return forward(*args, **kwargs)

    def exact(self) -> AbstractContextManager[None]:
        """Nothing to switch off."""
        return nullcontext()
