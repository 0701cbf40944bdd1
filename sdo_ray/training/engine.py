"""The DeepSpeed engine around the adapter's parameters.

The samplers send gradients, so the trainers hold the adapter alone: no denoiser, no forward pass, whatever the size of
the base model. DeepSpeed averages over workers, clips, and shards the optimizer.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed

from sdo_ray.training.settings import TrainerSettings, TrainingSettings


class Adapter(torch.nn.Module):
    """The adapter's weights as one module, float32.

    Args:
        weights: parameter name -> tensor.
    """

    def __init__(self, weights: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self.names = tuple(weights)
        # Parameter names may not contain dots, so they are held by position.
        self.tensors = torch.nn.ParameterList([tensor.clone().float() for tensor in weights.values()])

    def named(self) -> dict[str, torch.Tensor]:
        """Parameter name -> weights."""
        return dict(zip(self.names, self.tensors, strict=True))


def make_engine(weights: Mapping[str, torch.Tensor], training: TrainingSettings, trainers: TrainerSettings) -> Any:
    """A DeepSpeed engine whose module is an `Adapter`; to be called by all workers, in an initialised process group."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # keeps DeepSpeed from probing for accelerators
    import deepspeed  # starts threads and reads the environment, so only ever in a worker

    adapter = Adapter(weights)
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": training.max_grad_norm,
        "zero_optimization": {"stage": trainers.zero_stage},
        "optimizer": {
            "type": "AdamW",
            "params": {"lr": training.learning_rate, "weight_decay": training.weight_decay, "torch_adam": True},
        },
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }
    engine, *_ = deepspeed.initialize(model=adapter, model_parameters=list(adapter.parameters()), config=config)
    return engine


def apply_gradient(engine: Any, gradients: Sequence[Mapping[str, torch.Tensor]], num_samples: int) -> float:
    """One optimizer step UP the mean reward of the global batch.

    Args:
        engine: from `make_engine`.
        gradients: this worker's contributions, one or more, each the gradient of a sum over samples.
        num_samples: samples in this worker's contributions.

    Returns:
        Norm of the mean gradient over all workers, before clipping. If no sample of any worker counts, 0.0, and no step
        is made.
    """
    total = torch.tensor(float(num_samples), device=engine.device)
    torch.distributed.all_reduce(total)
    if total.item() == 0:
        return 0.0
    # DeepSpeed takes the mean over workers, the update is the mean over samples; and the optimizer descends.
    scale = -torch.distributed.get_world_size() / total
    # A scalar whose gradient is the contributions' sum: no forward pass is needed.
    surrogate = sum(
        (parameter * (scale * sum(gradient[name].to(parameter.device) for gradient in gradients))).sum()
        for name, parameter in engine.module.named().items()
    )
    engine.backward(surrogate)
    engine.step()
    return float(engine.get_global_grad_norm())
