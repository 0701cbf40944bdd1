"""The DeepSpeed engine: it averages over workers, clips, and shards the optimizer, and more by its ZeRO stage."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed

from sdo_ray.training.equal_calls import equal_calls
from sdo_ray.training.modules import Denoisers, Policy
from sdo_ray.training.optimizer import clip_whole, make_optimizer, pull_back
from sdo_ray.training.optimizer_state import load_state, masters
from sdo_ray.training.settings import TrainerSettings, TrainingSettings
from sdo_ray.training.sharded import shard


def make_engine(
    module: Policy | Denoisers, training: TrainingSettings, trainers: TrainerSettings, contributions: int
) -> Any:
    """A DeepSpeed engine; to be called by all workers, in an initialised process group.

    Args:
        module: what it holds, with policy version 0.
        training: step size and clipping.
        trainers: the ZeRO stage, the type of weights, and whether they have GPUs.
        contributions: that each worker gets for an update.
    """
    if not trainers.num_gpus:
        # Keeps DeepSpeed from probing, and from taking a GPU that belongs to samplers on the same node.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed  # starts threads and reads the environment, so only ever in a worker

    # Else DeepSpeed compiles a communication library for CPUs, which takes a compiler and half a minute, and a process
    # killed while it does so leaves a lock that all later ones wait for. gloo alone does.
    deepspeed.ops.__compatible_ops__ = {}

    stage, half = trainers.zero_stage, isinstance(module, Denoisers) and trainers.dtype == "bfloat16"
    zero: dict[str, Any] = {"stage": stage}
    if trainers.offload == "cpu":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": trainers.num_gpus > 0}
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": module.num_terms(contributions),
        "gradient_clipping": training.max_grad_norm if stage else 0.0,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,  # under ZeRO it is AdamW
        "zero_force_ds_cpu_optimizer": False,  # DeepSpeed's own for CPUs takes a compiler
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }
    if half:
        # Gradients are rounded once, as they come; they are added up, over workers too, in float32.
        config["bf16"] = {"enabled": True, "immediate_grad_update": True}
        config |= {"data_types": {"grad_accum_dtype": "fp32"}, "communication_data_type": "fp32"}
    if stage == 3:
        shard(module, config)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = make_optimizer(training.optimizer, trained, training.learning_rate)
    if not stage:
        clip_whole(optimizer, training.max_grad_norm)
    engine, *_ = deepspeed.initialize(model=module, optimizer=optimizer, config=config)
    if isinstance(module, Denoisers) and module.unrounded:
        load_state(engine, module.unrounded, {})
        module.unrounded = {}
    pull_back(optimizer, masters(engine), training.weight_decay)
    return engine


def make_step(engine: Any, terms: Sequence[Any], num_samples: int, lr: float) -> float | None:
    """One optimizer step UP the mean reward of the global batch.

    Args:
        engine: from `make_engine`.
        terms: this worker's, from its module's `terms`.
        num_samples: this worker's that count.
        lr: the step size.

    Returns:
        Norm of the mean gradient over all workers, before clipping. If no sample of any worker counts, 0.0, and no step
        is made. None if the gradient is not finite, and no step is made either.
    """
    total = torch.tensor(float(num_samples), device=engine.device)
    torch.distributed.all_reduce(total)
    if total.item() == 0:
        return 0.0
    # DeepSpeed takes the mean over workers and terms, the update is the mean over samples; and the optimizer descends.
    scale = -torch.distributed.get_world_size() * len(terms) / total
    if isinstance(engine.module, Denoisers):
        terms = equal_calls(terms, list(engine.module.denoisers), engine.device)
    for group in engine.optimizer.param_groups:
        group |= {"lr": lr, "weight_decay": 0.0}  # checkpoints of earlier versions bring a decay to zero
    for term in terms:
        engine.backward(scale * engine(term))
        engine.step()  # which looks for infinities first, of all workers
    return float(engine.get_global_grad_norm()) if engine.was_step_applied() else None


def policy_weights(engine: Any) -> dict[str, torch.Tensor]:
    """Parameter name -> weights, whole, float32, on the CPU of the first worker, for the others nothing.

    Where the module's are bfloat16 these are the masters, which steps too small for bfloat16 move all the same. To be
    called by all workers. Of sharded weights one parameter is gathered at a time.
    """
    from deepspeed.runtime.zero.partition_parameters import GatheredParameters
    from deepspeed.utils import safe_get_full_fp32_param

    weights, sharded, rounded = {}, engine.zero_optimization_stage() == 3, engine.bfloat16_enabled()
    for name, parameter in engine.module.named().items():
        with GatheredParameters([parameter], enabled=sharded and not rounded):
            whole = safe_get_full_fp32_param(parameter) if rounded else parameter.detach()
            if torch.distributed.get_rank() == 0:
                weights[name] = whole.to("cpu", copy=True)
    return weights
