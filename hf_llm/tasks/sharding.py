"""FSDP2 without a GPU: what is to run sharded on many of them can be tried on the processes of a laptop."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from accelerate import PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

if TYPE_CHECKING:
    from transformers import Trainer


def shard_on_cpu(trainer: Trainer) -> None:
    """Have accelerate shard over CPU processes, as the launch asked for.

    torch's FSDP2 does so over gloo; accelerate looks at its settings only where there are GPUs, and would train
    unsharded without a word.
    """
    state = trainer.accelerator.state
    asked = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if asked and state.distributed_type == DistributedType.MULTI_CPU:
        state.distributed_type = PartialState().distributed_type = (
            DistributedType.FSDP
        )  # the one is copied from the other
        state.fsdp_plugin = FullyShardedDataParallelPlugin()
        if state.mixed_precision != "no":
            state.fsdp_plugin.set_mixed_precision(state.mixed_precision)
        trainer.is_fsdp_enabled = True
