"""HF's Trainer for a source and a target: the loss of the target's tokens alone, and an evaluation that generates.

transformers' own Seq2SeqTrainer averages the losses of batches, and keeps the rows that fill the last one up; what it
generates with (`generate`, synced where the weights are sharded) is the same here.
B: batch, S: source positions, T: target positions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import EvalPrediction, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments
from transformers.distributed.fsdp import is_fsdp_managed_module
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from hf_llm.config import InputError
from hf_llm.config.generation import MORE_THAN_TEXTS, checked
from hf_llm.metrics.language_modeling import language_modeling
from hf_llm.models import fused_loss
from hf_llm.tasks.exact_trainer import ExactTrainer
from hf_llm.tasks.sampling import IGNORE_INDEX

if TYPE_CHECKING:
    from datasets import Dataset

    from hf_llm.tasks.seq2seq import Seq2SeqTask

SINGLE = {  # what would give other than one text for each source, the same each time
    "do_sample": False,
    "num_return_sequences": 1,
    **dict.fromkeys(MORE_THAN_TEXTS, False),
}


def generation_config(task: Seq2SeqTask, model: PreTrainedModel) -> GenerationConfig:
    """The model's own settings with `task.generation` laid over them.

    A length of the model's own stays, but of a causal LM, whose `max_length` is with the source.

    Raises:
        InputError: an unknown field, or a value that `generate` cannot take or that does not fit the task.
    """
    given = checked(task.generation, "task.generation.")
    for name, value in SINGLE.items():
        if given.get(name, value) != value:
            raise InputError(
                f"task.generation.{name}={given[name]}: a prediction is one text, the same each time; leave it out "
                f"(`model.generate` in Python has it)"
            )
    own = {name: value for name, value in model.generation_config.to_diff_dict().items() if value is not None}
    for name in ("transformers_version", "_from_model_config", *SINGLE):
        own.pop(name, None)
    if not own.get("do_sample"):  # greedy and beam search have no use for them, and say so
        for name in ("temperature", "top_k", "top_p", "typical_p", "min_p"):
            own.pop(name, None)
    if task.decoder_only or "max_length" in given:
        own = {name: value for name, value in own.items() if name not in ("max_length", "max_new_tokens")}
    length = {} if {"max_length", "max_new_tokens"} & {*own, *given} else {"max_new_tokens": task.max_target_length}
    try:
        settings = GenerationConfig(**{**own, **length, "do_sample": False, **given})  # pipelines sample by default
        settings.validate(strict=True)
    except (ValueError, TypeError) as error:
        raise InputError(f"task.generation: {' '.join(str(error).split())}") from error
    room, new = getattr(model.config, "max_position_embeddings", None), settings.max_new_tokens
    if room and new and (longest := new + task.max_source_length * task.decoder_only) > room:
        raise InputError(
            f"task.generation.max_new_tokens={new}: with it the model would need {longest} positions, and it has "
            f"{room}; lower it to {room - longest + new} at most"
        )
    return settings


class Collator:
    """Rows of `Seq2SeqTask.encode`, padded at their ends.

    `input_ids` (B, S) and `decoder_input_ids` (B, T), the targets shifted as the model has it; of a causal LM
    `input_ids` (B, S+T−1), source and target. `labels` says at each output what is to be predicted, or -100.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, *, decoder_only: bool):
        self.pad = int(cast(int, tokenizer.pad_token_id))
        self.model, self.decoder_only = model, decoder_only

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        sources = [list(row["input_ids"]) for row in rows]
        targets = [list(row["labels"]) for row in rows] if "labels" in rows[0] else None
        batch = {"row": torch.tensor([row["row"] for row in rows])}
        if self.decoder_only:
            batch["source_length"] = torch.tensor([len(source) for source in sources])
            if targets is not None:
                labels = [
                    [IGNORE_INDEX] * (len(source) - 1) + target
                    for source, target in zip(sources, targets, strict=True)
                ]
                # a row that fills up a batch has -100 for targets
                sources = [
                    source + [token if token != IGNORE_INDEX else self.pad for token in target[:-1]]
                    for source, target in zip(sources, targets, strict=True)
                ]
        else:
            labels = targets or []
        batch["input_ids"] = _padded(sources, self.pad)
        batch["attention_mask"] = _padded([[1] * len(source) for source in sources], 0)
        if targets is not None:
            batch["labels"] = batch["shift_labels"] = _padded(labels, IGNORE_INDEX)
            if not self.decoder_only:
                shift: Any = self.model.prepare_decoder_input_ids_from_labels
                batch["decoder_input_ids"] = shift(labels=batch["labels"])
        return batch


def _padded(rows: list[list[int]], value: int) -> torch.Tensor:
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value)


class SequenceToSequenceTrainer(ExactTrainer):
    """Evaluation keeps of each row its summed loss, the number of its tokens, and the text that was generated."""

    def __init__(self, model: PreTrainedModel, args: TrainingArguments, *, task: Seq2SeqTask, **kwargs: Any):
        super().__init__(model, args, compute_metrics=self._metrics, **kwargs)
        self.task = task
        self.generates = task.predict_with_generate

    def mean_loss(
        self, model: torch.nn.Module, inputs: dict[str, Any], count: torch.Tensor | int | None
    ) -> torch.Tensor:
        """Negative log-likelihood per token of the targets, in nats."""
        targets = inputs["labels"]
        if self.task.decoder_only and self.fused and not self.args.label_smoothing_factor:
            return fused_loss.loss_and_outputs(model, model_inputs(inputs), targets, count)[0]
        outputs = model(**model_inputs(inputs))
        return self.whole_loss(model, outputs, outputs.logits, targets, count)

    def prediction_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[None, Any, torch.Tensor]:
        """Per row the summed loss (B, 1), where asked the generated tokens (B, ≤ max_new_tokens), and how many tokens
        the loss is of (B, 1)."""
        inputs = self._prepare_inputs(inputs)
        losses = torch.zeros(len(inputs["row"]), 1, dtype=torch.float64)
        tokens = torch.zeros(len(inputs["row"]), 1, dtype=torch.int64)
        wide = torch.float32 if self.args.device.type == "mps" else torch.float64
        losses, tokens = losses.to(self.args.device, wide), tokens.to(self.args.device)
        with torch.no_grad(), self.compute_loss_context_manager():
            if "labels" in inputs:
                targets = inputs["labels"]
                each = self.token_losses(model, model_inputs(inputs), targets)
                losses, tokens = each.to(wide).sum(1, keepdim=True), (targets != IGNORE_INDEX).sum(1, keepdim=True)
            if not self.generates:
                return None, losses, tokens
            return None, (losses, self.write(inputs)), tokens

    def token_losses(self, model: torch.nn.Module, inputs: dict[str, Any], targets: torch.Tensor) -> torch.Tensor:
        """(B, T), 0 where the target is -100."""
        if self.task.decoder_only:
            return fused_loss.token_losses(model, inputs, targets)
        logits = model(**inputs).logits.float()
        return torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")

    def write(self, inputs: dict[str, Any]) -> torch.Tensor:
        """Token ids after the source, (B, ≤ max_new_tokens), those after the end replaced by -100."""
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        tokenizer = cast(PreTrainedTokenizerBase, self.processing_class)
        if self.task.decoder_only:
            ids, mask = _left_padded(ids, inputs["source_length"], int(cast(int, tokenizer.pad_token_id)))
        synced = is_deepspeed_zero3_enabled() or is_fsdp_managed_module(self.model)
        try:
            output = self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                generation_config=self.model.generation_config,
                synced_gpus=synced,
                tokenizer=tokenizer,  # for stop_strings
            )
        except (ValueError, ArithmeticError) as error:  # some settings are looked at only here
            raise InputError(f"task.generation: {' '.join(str(error).split())}") from error
        output = output[:, ids.shape[1] :] if self.task.decoder_only else output[:, 1:]  # less the decoder's start
        ends = torch.isin(output, torch.tensor(self._ends(), device=output.device)).long()
        return output.masked_fill(ends.cumsum(1) - ends > 0, IGNORE_INDEX)

    def _ends(self) -> list[int]:
        ends = self.model.generation_config.eos_token_id
        return list(ends) if isinstance(ends, (list, tuple)) else [] if ends is None else [ends]

    def _metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        losses, generated = self._kept(prediction.predictions)
        tokens = int(np.sum(prediction.label_ids))
        metrics: dict[str, float] = {}
        if tokens:
            nll = math.fsum(np.ravel(losses))  # the same in whatever batches they came
            figures = language_modeling(nll, tokens=tokens, words=tokens, num_bytes=tokens)
            metrics = {name: figures[name] for name in ("loss", "perplexity")}
        if generated is not None and tokens:
            if self.is_in_train:
                report = self.task.report(self.decoded(generated), list(self.evaluated["references"]))
                metrics |= {name: value for name, value in report.items() if not name.endswith("_signature")}
            metrics["gen_len"] = float(np.mean(np.sum(generated != IGNORE_INDEX, axis=1)))
        return metrics

    @staticmethod
    def _kept(predictions: Any) -> tuple[np.ndarray, np.ndarray | None]:
        return predictions if isinstance(predictions, tuple) else (predictions, None)

    def decoded(self, generated: np.ndarray) -> list[str]:
        """The texts of what `write` gave for all rows of `evaluated`."""
        tokenizer = cast(PreTrainedTokenizerBase, self.processing_class)
        rows = [row[row != IGNORE_INDEX].tolist() for row in generated]
        return [text.strip() for text in tokenizer.batch_decode(rows, skip_special_tokens=True)]

    def texts(self, encoded: Dataset, split: str) -> tuple[list[str], dict[str, float]]:
        """What the model writes for each row of an encoded split, in the order of its raw rows, and the split's loss,
        perplexity and mean generated length (`gen_len`, in tokens)."""
        before, self.generates = self.generates, True
        try:
            output = self.predict(cast(Any, encoded), metric_key_prefix=split)
        finally:
            self.generates = before
        texts = self.decoded(cast(np.ndarray, self._kept(output.predictions)[1]))
        order = np.argsort(np.asarray(encoded["row"]))
        return [texts[index] for index in order], output.metrics or {}


def _left_padded(ids: torch.Tensor, lengths: torch.Tensor, pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The first `lengths` (B) tokens of each row, moved to its end, where the continuation starts; and the mask."""
    longest = int(lengths.max())
    places = torch.arange(longest, device=ids.device) - (longest - lengths)[:, None]  # (B, longest)
    mask = places >= 0
    return ids.gather(1, places.clamp(min=0)).masked_fill(~mask, pad), mask.long()


def model_inputs(batch: dict[str, Any]) -> dict[str, Any]:
    """What the model takes of a batch."""
    others = ("labels", "shift_labels", "row", "source_length", "candidates")
    return {name: value for name, value in batch.items() if name not in others}
