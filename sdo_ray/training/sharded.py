"""A module's weights in shards before DeepSpeed's engine is made of it, which would put all of it on every device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def shard(module: torch.nn.Module, config: Mapping[str, Any]) -> None:
    """Leave each worker its share of every parameter; to be called by all workers, with the same weights.

    One parameter at a time goes whole to the device, so that it never holds more than its share and the largest
    parameter: a model may be as large as all devices together (ZeRO-3, Rajbhandari et al. 2020, arXiv 1910.02054).

    Args:
        module: on the CPU.
        config: DeepSpeed's, with ZeRO's stage 3.
    """
    import deepspeed

    init = deepspeed.zero.Init(module=module, config_dict_or_path=dict(config))
    for buffer in module.buffers():  # which the engine leaves where they are then
        buffer.data = buffer.data.to(init.local_device)
