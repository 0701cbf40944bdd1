"""Whether what is trained fits its optimizer, and a trainer's memory; said before trainers start."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import ray
import torch

from sdo_ray.models.denoisers import denoiser_skeletons
from sdo_ray.models.settings import ModelSettings
from sdo_ray.settings import Problem, SettingsError
from sdo_ray.training.settings import TrainerSettings, TrainingSettings

GIB = 2**30

STATE = {"adamw": 8.0, "adamw-8bit": 2.0, "adafactor": 0.0, "lion": 4.0, "muon": 4.0}
"""Optimizer -> bytes that it keeps of each weight that is trained, at least."""


def check_optimizer(
    training: TrainingSettings, trainers: TrainerSettings, shapes: Mapping[str, Collection[int]]
) -> None:
    """Refuse an optimizer that cannot step these weights.

    Args:
        training: which it is.
        trainers: what ZeRO shards.
        shapes: parameter name -> shape, of all that is trained.

    Raises:
        SettingsError: of `training.optimizer`.
    """
    name = training.optimizer
    if name != "adamw" and trainers.zero_stage:
        got = f"got {name!r}, which keeps whole matrices, and trainers.zero_stage = {trainers.zero_stage} cuts them"
        raise SettingsError(Problem("training.optimizer", got, fix="set trainers.zero_stage: 0, or choose adamw"))
    if name in ("adamw-8bit", "lion") and importlib.util.find_spec("bitsandbytes") is None:
        got = f"got {name!r}, and bitsandbytes is not installed"
        fix = "pip install 'sdo-ray[bitsandbytes]' on all nodes, or choose adamw or adafactor"
        raise SettingsError(Problem("training.optimizer", got, fix=fix))
    others = [parameter for parameter, shape in shapes.items() if len(shape) != 2]
    if name == "muon" and others:
        got = f"got {name!r}, which is for matrices, and {len(others)} of {len(shapes)} weights are none: {others[0]}"
        raise SettingsError(Problem("training.optimizer", got, fix="choose adamw, or adafactor"))


SUB_GROUP = 10**9
"""Weights that a trainer steps at once with ZeRO-3, DeepSpeed's `sub_group_size`."""


@dataclass(frozen=True)
class Load:
    """What a trainer has to hold, in bytes. Activations come on top, so it may be more."""

    device: float
    """On its GPU, or its CPU if it has none."""
    host: float = 0.0
    """In the CPU's memory besides: what is offloaded, or what is there before it goes to a GPU."""

    @classmethod
    def of(cls, trained: int, frozen: float, training: TrainingSettings, trainers: TrainerSettings) -> Load:
        """Of one trainer.

        Args:
            trained: weights that are trained.
            frozen: bytes of the other weights of denoisers that trainers hold.
            training: the optimizer.
            trainers: how many, what they shard or offload, and the type that they compute with.
        """
        stage, workers = trainers.zero_stage, trainers.count
        weights = (getattr(torch, trainers.dtype).itemsize * trained + frozen) / (workers if stage == 3 else 1)
        gradients = 4 * trained / (workers if stage >= 2 else 1)
        if stage == 3 and trainers.offload == "none":
            gradients += 4 * min(trained / workers, SUB_GROUP)  # a copy, while these are stepped
        masters = 4 * trained / workers if stage else 0.0
        state = STATE[training.optimizer] * trained / (workers if stage else 1)
        offloaded = masters + state if trainers.offload == "cpu" else 0.0
        device = weights + gradients + masters + state - offloaded
        # The policy that it begins with stays as it came. Before it goes anywhere it is there twice more, as weights by
        # name and in the module, with the module's other weights.
        policy = 4 * trained
        start = 3 * policy + frozen
        if trainers.num_gpus:
            return cls(device, max(start, policy + offloaded))
        # Weights by name that the module rounds stay until they are masters; then there are moments in their place.
        by_name = 0.0 if trainers.dtype == "float32" else max(0.0, policy - state)
        return cls(max(start, policy + by_name + device + offloaded))


def frozen_bytes(model: ModelSettings, trained: int) -> int:
    """Bytes of the denoisers' weights that are not trained, of which only the configuration is read."""
    skeletons = denoiser_skeletons(model.reference).values()
    weights = sum(parameter.numel() for module in skeletons for parameter in module.parameters())
    return max(0, weights - trained) * getattr(torch, model.dtype).itemsize


def check_fits(model: ModelSettings, trained: int, training: TrainingSettings, trainers: TrainerSettings) -> None:
    """Refuse trainers that cannot hold what they train; on a cluster that is there, a node of which is asked.

    Args:
        model: what is trained in it.
        trained: weights that are trained.
        training: the optimizer.
        trainers: how many, and what they shard or offload.

    Raises:
        SettingsError: of `trainers`, with the numbers, and what would fit.
    """
    frozen = frozen_bytes(model, trained) if training.backward == "trainer" else 0
    load = Load.of(trained, frozen, training, trainers)
    if load.device + load.host < GIB:
        return
    probe = ray.remote(_memory).options(num_cpus=trainers.num_cpus, num_gpus=trainers.num_gpus)
    device, host = ray.get(probe.remote(bool(trainers.num_gpus)))
    if problem := too_large(trained, frozen, training, trainers, device, host):
        raise SettingsError(problem)


def too_large(
    trained: int, frozen: float, training: TrainingSettings, trainers: TrainerSettings, device: float, host: float
) -> Problem | None:
    """What is wrong with trainers whose device and host have so many bytes; None if they may fit."""

    def fits(trainers: TrainerSettings, training: TrainingSettings = training) -> bool:
        load = Load.of(trained, frozen, training, trainers)
        return load.device <= device and load.host <= host

    if fits(trainers):
        return None
    load = Load.of(trained, frozen, training, trainers)
    has = f"{device / GIB:.1f} GiB" + (f", its host {host / GIB:.1f} GiB" if load.host else "")
    needs = f"{load.device / GIB:.1f} GiB" + (f" and {load.host / GIB:.1f} GiB of its host" if load.host else "")
    got = f"each needs at least {needs} for weights, gradients and optimizer, and has {has}"
    ways: dict[str, bool] = {}
    half = trainers.dtype == "bfloat16"
    if training.backward == "trainer" and trainers.zero_stage and not half:
        smaller = fits(trainers.model_copy(update={"dtype": "bfloat16"}))
        ways["trainers.dtype: bfloat16 with model.dtype: bfloat16"] = smaller
    if trainers.num_gpus:
        ways["trainers.offload: cpu"] = fits(trainers.model_copy(update={"offload": "cpu", "zero_stage": 2}))
    shards = 3 if training.backward == "trainer" else 2
    for count in (2, 4, 8, 16, 32):
        more = trainers.model_copy(update={"count": count, "zero_stage": shards})
        if count > trainers.count and fits(more):
            ways[f"trainers.count: {count} with trainers.zero_stage: {shards}"] = True
            break
    alone = trainers.model_copy(update={"zero_stage": 0, "offload": "none", "dtype": "float32"})
    way = "training.optimizer: adafactor with trainers.zero_stage: 0" + " and trainers.dtype: float32" * half
    ways[way] = fits(alone, training.model_copy(update={"optimizer": "adafactor"}))
    would = [f"set {way}" for way, does in ways.items() if does]
    return Problem("trainers", got, fix=" or ".join([*would, "train less, as a LoRA does"]))


def _memory(of_gpu: bool) -> tuple[float, float]:
    """Bytes of the device of whoever calls this, and of its node."""
    host = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return (float(torch.cuda.get_device_properties(0).total_memory) if of_gpu else host), host
