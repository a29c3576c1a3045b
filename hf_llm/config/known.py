"""What is known of single keys: new names, and values that cannot be."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from hf_llm.config.schema import FORMAT

# What transformers 5 renamed or dropped, and what to write now.
RENAMED = {
    "adafactor": "trainer.optim=adafactor",
    "dataloader_use_stateful": "nothing (removed)",
    "eval_batch_size": "trainer.per_device_eval_batch_size",
    "evaluation_strategy": "trainer.eval_strategy",
    "fp16_backend": "nothing (removed)",
    "group_by_length": "trainer.train_sampling_strategy=group_by_length",
    "half_precision_backend": "nothing (removed)",
    "include_inputs_for_metrics": "trainer.include_for_metrics=[inputs]",
    "jit_mode_eval": "trainer.torch_compile",
    "logging_dir": "the environment variable TENSORBOARD_LOGGING_DIR",
    "no_cuda": "trainer.use_cpu",
    "overwrite_output_dir": "run=NAME (a finished run is never overwritten)",
    "per_gpu_eval_batch_size": "trainer.per_device_eval_batch_size",
    "per_gpu_train_batch_size": "trainer.per_device_train_batch_size",
    "push_to_hub_model_id": "trainer.hub_model_id",
    "push_to_hub_token": "trainer.hub_token",
    "save_safetensors": "nothing (always so)",
    "tokenizer": "the tokenizer group",
    "train_batch_size": "trainer.per_device_train_batch_size",
    "use_mps_device": "nothing (found by itself)",
    "warmup_ratio": "trainer.warmup_steps (below 1 it is a ratio)",
}
# Arguments that cannot be: the values that say nothing, and the reason.
REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "batch_eval_metrics": ((False, None), "the metrics are over all rows, so it stays false"),
    "eval_do_concat_batches": ((True, None), "the metrics are over all rows, so it stays true"),
    "hub_always_push": ((False, None), "the model goes up once, when its metrics and card are written"),
    "hub_revision": ((None,), "the model goes up to the main branch"),
    "hub_strategy": (
        ("end", "every_save", None),
        "the model goes up once, when its metrics and card are written; checkpoints stay here",
    ),
    "hub_token": ((None,), "a secret does not belong in a configuration; log in (`hf auth login`) or set HF_TOKEN"),
}
# Keys that follow from the tokenizer, the data or the run: setting them by hand could only contradict those.
DERIVED_MODEL_KEYS = {
    "architectures": "the task decides it",
    "id2label": "the data's labels decide it; name them with data.labels",
    "label2id": "the data's labels decide it; name them with data.labels",
    "num_labels": "the data's labels decide it; name them with data.labels",
    "transformers_version": "transformers writes it",
}


class Range(NamedTuple):
    """The numbers that a key can have; transformers finds out late, in words that name no key."""

    least: float = -math.inf
    most: float = math.inf
    above: bool = False  # `least` itself is too small
    below: bool = False  # `most` itself is too large
    infinite: bool = False  # infinity is among them
    unset: float = math.nan  # a number outside that means "not given"
    instead: str = ""  # what who gives too small a number may have meant

    def wrong(self, number: float) -> str | None:
        """What is wrong with `number`, to be said after it; None where nothing is."""
        if number == self.unset:
            return None
        if math.isnan(number) or (math.isinf(number) and not self.infinite):
            return "is not a number to work with"
        if number < self.least or (self.above and number == self.least):
            return f"is too small; it is {'above' if self.above else 'at least'} {self.least}{self.instead}"
        if number > self.most or (self.below and number == self.most):
            return f"is too large; it is {'below' if self.below else 'at most'} {self.most}"
        return None


ANY_NUMBER = Range()
COUNT, FROM_0, ABOVE_0 = Range(1), Range(0), Range(0, above=True)
SHARE, SHARE_ABOVE_0 = Range(0, 1), Range(0, 1, above=True)
SHARE_BELOW_1 = Range(0, 1, below=True)
PORT = Range(0, 65535)
SEED = Range(0, 2**32 - 1)

RANGES = {
    "batch_size": COUNT,
    "data.num_proc": COUNT,
    "data.validation_fraction": SHARE_BELOW_1,
    "early_stopping_patience": COUNT,
    "format": Range(1, FORMAT),
    "least_steps": COUNT,
    "launcher.cpus_per_task": COUNT,
    "launcher.gpus_per_node": FROM_0,
    "launcher.machine_rank": FROM_0,
    "launcher.main_process_port": PORT,
    "launcher.mem_gb": ABOVE_0,
    "launcher.nodes": COUNT,
    "launcher.num_machines": COUNT,
    "launcher.num_processes": COUNT,
    "launcher.shutdown_timeout": FROM_0,
    "launcher.tasks_per_node": COUNT,
    "launcher.timeout_min": COUNT,
    "port": PORT,
    "seed": SEED,
    "task.baseline": COUNT,
    "task.block_size": COUNT,
    "task.doc_stride": COUNT._replace(instead=", so that an answer at a window's end stands whole in the next"),
    "task.mask_seed": SEED,
    "task.max_answer_length": COUNT,
    "task.max_length": COUNT,
    "task.max_query_length": COUNT,
    "task.max_source_length": COUNT,
    "task.max_target_length": COUNT,
    "task.mlm_probability": SHARE_ABOVE_0,
    "task.n_best_size": COUNT,
    "task.top_k": COUNT,
    "tokenizer.min_frequency": FROM_0,
    "tokenizer.vocab_size": COUNT,
    "trainer.adam_beta1": SHARE_BELOW_1,
    "trainer.adam_beta2": SHARE_BELOW_1,
    "trainer.adam_epsilon": FROM_0,
    "trainer.data_seed": SEED,
    "trainer.dataloader_num_workers": FROM_0,
    "trainer.dataloader_prefetch_factor": COUNT,
    "trainer.ddp_bucket_cap_mb": COUNT,
    "trainer.ddp_timeout": COUNT,
    "trainer.eval_accumulation_steps": COUNT,
    "trainer.eval_delay": FROM_0,
    "trainer.eval_steps": ABOVE_0._replace(instead="; trainer.eval_strategy=no measures nothing while training"),
    "trainer.gradient_accumulation_steps": COUNT,
    "trainer.label_smoothing_factor": SHARE,
    "trainer.learning_rate": FROM_0,
    "trainer.local_rank": Range(-1),
    "trainer.logging_steps": ABOVE_0._replace(instead="; trainer.logging_strategy=no logs nothing"),
    "trainer.max_grad_norm": Range(0, infinite=True, instead="; 0 clips nothing"),
    "trainer.max_steps": COUNT._replace(unset=-1, instead="; -1 leaves it to trainer.num_train_epochs"),
    "trainer.neftune_noise_alpha": FROM_0,
    "trainer.num_train_epochs": ABOVE_0,
    "trainer.per_device_eval_batch_size": COUNT,
    "trainer.per_device_train_batch_size": COUNT,
    "trainer.save_steps": ABOVE_0._replace(instead="; trainer.save_strategy=no saves no checkpoint"),
    "trainer.save_total_limit": COUNT._replace(instead="; null keeps all checkpoints"),
    "trainer.seed": SEED,
    "trainer.torch_empty_cache_steps": COUNT,
    "trainer.warmup_steps": FROM_0,
    "trainer.weight_decay": FROM_0,
}
# The values that a key can have, where transformers' source has no list of them (`declared.trainer_options`).
_LOG_LEVELS = ("detail", "debug", "info", "warning", "error", "critical", "passive")
OPTIONS: dict[str, tuple[Any, ...]] = {
    "trainer.include_for_metrics": ("inputs", "loss"),
    "trainer.include_num_input_tokens_seen": (True, False, "all", "non_padding", "no"),
    "trainer.log_level": _LOG_LEVELS,
    "trainer.log_level_replica": _LOG_LEVELS,
    "trainer.torch_compile_mode": ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs", None),
}
# Those of transformers' GenerationConfig, whichever group they stand in
GENERATION_RANGES = {
    "epsilon_cutoff": SHARE,
    "eta_cutoff": SHARE,
    "max_length": COUNT,
    "max_new_tokens": COUNT,
    "max_time": ABOVE_0,
    "min_length": FROM_0,
    "min_new_tokens": FROM_0,
    "min_p": SHARE,
    "no_repeat_ngram_size": FROM_0,
    "num_beams": COUNT,
    "num_return_sequences": COUNT,
    "repetition_penalty": ABOVE_0,
    "temperature": ABOVE_0._replace(instead="; do_sample=false takes the likeliest token"),
    "top_h": SHARE_ABOVE_0,
    "top_k": FROM_0,
    "top_p": SHARE,
    "typical_p": SHARE_ABOVE_0,
}

# Sizes, under the names that the config classes of transformers and of this package give them: 1 at least. torch says
# so of some in words that name no key, and makes an empty model of others.
SIZES = (
    "d_ff", "d_inner", "d_kv", "d_model", "decoder_attention_heads", "decoder_ffn_dim", "decoder_layers", "dim",
    "embedding_size", "encoder_attention_heads", "encoder_ffn_dim", "encoder_layers", "ffn_dim", "head_dim",
    "hidden_dim", "hidden_size", "intermediate_size", "max_position_embeddings", "n_ctx", "n_embd", "n_head",
    "n_heads", "n_inner", "n_layer", "n_layers", "n_positions", "num_attention_heads", "num_decoder_layers",
    "num_experts", "num_heads", "num_hidden_layers", "num_key_value_heads", "num_layers", "num_local_experts",
    "vocab_size", "window",
)  # fmt: skip


def model_range(name: str) -> Range:
    """The numbers that a field of a model's config class can have, by its name."""
    if name in SIZES:
        return COUNT
    if name.endswith(("dropout", "drop", "dropout_rate", "dropout_prob", "dropout_p")):
        return SHARE
    if name.endswith(("_eps", "_epsilon", "_range", "_factor", "_coef", "_window", "_size", "_regularization")):
        return FROM_0
    return ANY_NUMBER
