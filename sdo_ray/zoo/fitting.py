"""The optimization loop both pretraining stages share: AdamW, cosine learning rate, averaged weights, exact resume.

Everything random in update u is drawn from a generator seeded by (seed, purpose, u), so the state of a run is its
weights, their average, the optimizer's moments and the number u: a run that was killed and started again equals the
unbroken one.
"""

from __future__ import annotations

import copy
import math
import os
import shutil
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sdo_ray.zoo.settings import FitSettings

M = TypeVar("M", bound=nn.Module)

Report = Callable[[str], None]


def learning_rate(settings: FitSettings, update: int) -> float:
    """Learning rate of update `update`, counted from 0: linear warm-up times half a cosine that ends at 0."""
    warm = min(1.0, (update + 1) / (settings.warmup + 1))
    return settings.lr * warm * 0.5 * (1 + math.cos(math.pi * update / settings.updates))


def generator(seed: int, purpose: str, number: int) -> torch.Generator:
    """A source of random numbers for one purpose and one update, on the CPU so that every device draws the same."""
    entropy = np.random.SeedSequence([seed, zlib.crc32(purpose.encode()), number])
    return torch.Generator().manual_seed(int(entropy.generate_state(1, np.uint32)[0]))


def batch_rows(seed: int, update: int, rows: int, batch_size: int) -> Tensor:
    """Row numbers of an update, int64 [batch_size]: passes over all rows, each in an order of its own."""
    first = update * batch_size
    numbers = range(first, first + batch_size)
    epochs = {number // rows for number in numbers}
    orders = {epoch: torch.randperm(rows, generator=generator(seed, "order", epoch)) for epoch in epochs}
    return torch.stack([orders[number // rows][number % rows] for number in numbers])


def fit(
    model: M,
    loss: Callable[[int], Tensor],
    settings: FitSettings,
    directory: Path,
    on_save: Callable[[int, M], None],
    report: Report,
) -> M:
    """Minimizes `loss` over the parameters of `model` and returns a copy that holds their running average.

    The average of theta is e <- d e + (1 - d) theta with d = min(ema, (1 + u) / (10 + u)), so that the first updates
    are not held back by where the model started.

    Args:
        model: fitted in place; float32 parameters.
        loss: update number -> scalar, through `model`; draws what it needs from `generator`.
        settings: see `FitSettings`.
        directory: holds the state; a run that finds one there continues it.
        on_save: called with the number of finished updates and the averaged model after every saved state.
        report: takes lines of progress.

    Raises:
        FloatingPointError: the loss of an update is not finite; the last saved state stays.
    """
    average = copy.deepcopy(model).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(
        model.parameters(), settings.lr, (0.9, 0.99), weight_decay=settings.weight_decay, fused=True
    )
    done = _load(directory, model, average, optimizer)
    if done:
        report(f"continues after update {done} of {settings.updates}, from {directory}")
    model.train()
    started, first, recent = time.monotonic(), done, []
    for update in range(done, settings.updates):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings, update)
        value = loss(update)
        if not torch.isfinite(value):
            raise FloatingPointError(
                f"the loss of update {update} is {value.item()}; lower lr (now {settings.lr}) and start again:"
                f" the state of an earlier update is in {directory}"
            )
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        optimizer.step()
        decay = min(settings.ema, (1 + update) / (10 + update))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
        recent.append(value.item())

        done = update + 1
        if done % settings.log_every == 0 or done == settings.updates:
            pace = (time.monotonic() - started) / (done - first)
            report(
                f"update {done} of {settings.updates}  loss {sum(recent) / len(recent):.4f}"
                f"  lr {learning_rate(settings, update):.2e}  {pace:.3f} s each"
                f"  {_clock(pace * (settings.updates - done))} left"
            )
            recent.clear()
        if done % settings.save_every == 0 or done == settings.updates:
            _save(directory, done, model, average, optimizer)
            on_save(done, average)
    return average


def _save(directory: Path, done: int, model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Writes the state under a temporary name and renames it, so that a state that can be seen is complete."""
    state = directory / f"state-{done:08d}"
    partial = state.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file(model.state_dict(), partial / "model.safetensors")
    save_file(average.state_dict(), partial / "average.safetensors")
    torch.save(optimizer.state_dict(), partial / "optimizer.pt")
    shutil.rmtree(state, ignore_errors=True)
    os.replace(partial, state)
    for old in _states(directory)[:-1]:
        shutil.rmtree(old)


def _load(directory: Path, model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Fills all three from the newest state and returns its number of finished updates; 0 where there is none."""
    states = _states(directory)
    if not states:
        return 0
    model.load_state_dict(load_file(states[-1] / "model.safetensors"))
    average.load_state_dict(load_file(states[-1] / "average.safetensors"))
    optimizer.load_state_dict(torch.load(states[-1] / "optimizer.pt", map_location="cpu", weights_only=True))
    return int(states[-1].name.removeprefix("state-"))


def _states(directory: Path) -> list[Path]:
    return sorted(path for path in directory.glob("state-*") if path.suffix == "")


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
