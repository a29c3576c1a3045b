"""What a training step will hold in memory: an estimate, made before any weight exists.

Weights, gradients and the optimizer's state are counted: the optimizer takes one step on torch's meta device, which
has shapes and no numbers. The activations are what autograd keeps of one micro-batch, seen by its hooks while the
model runs in a `FakeTensorMode` on the training's own device. So the kernels that the device has (fused attention or
not), dropout masks and autocast are in it, where a formula (Korthikanti et al. 2022, *Reducing Activation
Recomputation in Large Transformer Models*, equation 1) is of one architecture. The loss is by formula: its logits,
their softmax and their gradient, 4 bytes each, of all tokens of the micro-batch or of those that the fused loss holds.
Not in it: the libraries themselves, an evaluation, fragmentation, what a kernel needs while it works, a layer that
checkpointing computes again. On a CPU the estimate was 0.8 to 1.0 of the peak of the process over what it held before
the model was built, for gpt2, rnn, fnn and bert as conf/model has them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil
import torch
from torch import nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel, TrainingArguments

logger = logging.getLogger(__name__)

# Numbers that torch's own kernels on a CPU keep of each position and hidden channel (measured; cuDNN keeps fewer):
# a fused layer is one operation to the hooks.
RECURRENT = {nn.LSTM: 15, nn.GRU: 6, nn.RNN: 1}


@dataclass
class Memory:
    """Bytes on each device; None for what could not be found out."""

    weights: int
    gradients: int
    optimizer: int | None
    activations: int | None
    loss: int
    device: str
    available: int  # all of a GPU's memory; what is free now on a CPU, for each of its processes
    sharded: str = ""  # what several processes share (ZeRO, FSDP), in words

    @property
    def certain(self) -> int:
        """What is there all through a step."""
        return self.weights + self.gradients + (self.optimizer or 0)

    @property
    def total(self) -> int:
        return self.certain + (self.activations or 0) + self.loss


def optimizer_bytes(model: PreTrainedModel, args: TrainingArguments) -> int | None:
    """The state that `args.optim` holds for a model on the meta device; None where it does not work there."""
    from transformers import Trainer
    from transformers.trainer_optimizer import is_optimizer_factory

    try:
        optimizer_class, options = Trainer.get_optimizer_cls_and_kwargs(args, model)
        if is_optimizer_factory(optimizer_class):
            return None
        options.pop("fused", None)  # the same state, by another kernel
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = optimizer_class(**{"params": parameters, **options})
        for parameter in parameters:
            parameter.grad = torch.empty_like(parameter)
        optimizer.step()
    except Exception as error:  # made for a GPU alone, or of a package of its own
        logger.debug("the size of the optimizer's state is not known: %s", error)
        return None
    finally:
        model.zero_grad()
    return sum(
        value.nbytes for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)
    )


def activation_bytes(
    sketch: Callable[[], PreTrainedModel], args: TrainingArguments, rows: int, length: int
) -> int | None:
    """What autograd keeps of a micro-batch (rows, length) between the forward and the backward pass, less the weights
    and what the loss keeps.

    Args:
        sketch: makes the model, on whatever device and in whatever mode it is called.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    kept: dict[int, torch.Tensor] = {}
    inside = 0

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()._cdata
        if storage not in weights:
            kept[storage] = tensor  # held, so that no other gets its address
        return tensor

    def recurrent(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal inside
        numbers = next((count for kind, count in RECURRENT.items() if isinstance(module, kind)), 0)
        inside += numbers * output[0].nbytes if isinstance(output[0], torch.Tensor) else 0

    kind = precision(args)
    try:
        with FakeTensorMode(), torch.device("cpu" if args.device.type == "cpu" else args.device):  # no cpu:0
            model = sketch().train()
            if args.gradient_checkpointing:
                # its newer name, which does not warn, is not in the first releases of transformers 5
                enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
                options: dict[str, Any] = dict(args.gradient_checkpointing_kwargs or {})  # type: ignore[arg-type]
                which = {name: options.pop(name) for name in ("every_n_layers", "offload") if name in options}
                enable(options or None, **which)
            weights = {p.untyped_storage()._cdata for p in (*model.parameters(), *model.buffers())}
            for module in model.modules():
                if isinstance(module, nn.RNNBase):
                    module.register_forward_hook(recurrent)
            autocast = torch.autocast(args.device.type, kind) if kind else nullcontext()
            ids = torch.zeros(rows, length, dtype=torch.int64)
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast:
                others = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
                model.base_model(input_ids=ids, **others)  # without the output layer, which is the loss's
            return inside + sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    except Exception as error:  # an architecture that asks for other inputs, or looks at their numbers
        logger.debug("the size of the activations is not known: %s", error)
        return None


def precision(args: TrainingArguments) -> torch.dtype | None:
    """What a step computes in, by the trainer's arguments or else the launcher's word; None for the weights' own."""
    name = "bf16" if args.bf16 else "fp16" if args.fp16 else os.environ.get("ACCELERATE_MIXED_PRECISION")
    if name == "fp16" and args.device.type == "cpu":
        return None  # accelerate leaves it out
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(str(name))


def loss_bytes(model: PreTrainedModel, args: TrainingArguments, tokens: int, fused: bool) -> int:
    """The loss of a model that predicts `tokens` tokens at once: logits, softmax and gradient in float32. Where
    it is fused, of some rows, on a CPU in one place, with the gradients of the output weights and hidden states."""
    from hf_llm.models.fused_loss import rows_at_once

    head = model.get_output_embeddings()
    vocabulary, channels = head.weight.shape if isinstance(head, nn.Linear) else (model.config.vocab_size, 0)
    held = rows_at_once(tokens, vocabulary) if fused else tokens
    if held == tokens:
        return 3 * 4 * tokens * vocabulary
    copies = 3 if precision(args) else 1 if args.device.type == "cpu" else 2
    return copies * 4 * held * vocabulary + 4 * channels * (vocabulary + tokens)


def available(device: torch.device) -> int:
    """A GPU's memory, or a process's share of what is free on the CPU."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    return psutil.virtual_memory().available // int(os.environ.get("LOCAL_WORLD_SIZE", 1))


@dataclass
class Shares:
    """By how much the weights, gradients and optimizer state of a process are less than the model's."""

    weights: int = 1
    gradients: int = 1
    optimizer: int = 1
    words: str = ""


def shares(args: TrainingArguments) -> Shares:
    """What ZeRO or FSDP deals out to the processes, as `args` or accelerate's environment has it."""
    count, environment = args.world_size, os.environ
    if args.deepspeed or environment.get("ACCELERATE_USE_DEEPSPEED") == "true":
        config = getattr(args, "hf_deepspeed_config", None)
        stage = config.get_value("zero_optimization.stage") if config else None
        stage = stage if stage is not None else environment.get("ACCELERATE_DEEPSPEED_ZERO_STAGE")
        if str(stage) not in ("0", "1", "2", "3"):
            return Shares(words="DeepSpeed is not accounted for")
        level = int(str(stage))
        weights, gradients, optimizer = (count if level >= least else 1 for least in (3, 2, 1))
        return Shares(weights, gradients, optimizer, f"ZeRO {level} on {count} processes")
    if args.fsdp or environment.get("ACCELERATE_USE_FSDP") == "true":
        given = args.fsdp_config if args.fsdp and isinstance(args.fsdp_config, dict) else {}
        again = given.get("reshard_after_forward", environment.get("FSDP_RESHARD_AFTER_FORWARD", "true"))
        strategy = environment.get("FSDP_SHARDING_STRATEGY", "FULL_SHARD")
        if str(again).lower() in ("no_shard", "3") or strategy in ("NO_SHARD", "3"):
            return Shares(words="FSDP without shards")
        whole = str(again).lower() in ("false", "shard_grad_op", "2") or strategy in ("SHARD_GRAD_OP", "2")
        return Shares(1 if whole else count, count, count, words=f"FSDP on {count} processes")
    return Shares()
