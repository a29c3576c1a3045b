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
    infinite: bool = False  # infinity is among them
    instead: str = ""  # what who gives too small a number may have meant

    def wrong(self, number: float) -> str | None:
        """What is wrong with `number`, to be said after it; None where nothing is."""
        if math.isnan(number) or (math.isinf(number) and not self.infinite):
            return "is not a number to work with"
        if number < self.least or (self.above and number == self.least):
            return f"is too small; it is {'above' if self.above else 'at least'} {self.least}{self.instead}"
        return f"is too large; it is at most {self.most}" if number > self.most else None


ANY_NUMBER = Range()
COUNT, FROM_0, ABOVE_0 = Range(1), Range(0), Range(0, above=True)
SHARE, SHARE_ABOVE_0 = Range(0, 1), Range(0, 1, above=True)
SEED = Range(0, 2**32 - 1)

RANGES = {
    "batch_size": COUNT,
    "data.num_proc": COUNT,
    "early_stopping_patience": COUNT,
    "format": Range(1, FORMAT),
    "launcher.gpus_per_node": FROM_0,
    "launcher.machine_rank": FROM_0,
    "launcher.main_process_port": FROM_0,
    "launcher.nodes": COUNT,
    "launcher.num_machines": COUNT,
    "launcher.num_processes": COUNT,
    "launcher.shutdown_timeout": FROM_0,
    "launcher.tasks_per_node": COUNT,
    "launcher.timeout_min": COUNT,
    "seed": SEED,
    "task.baseline": COUNT,
    "task.block_size": COUNT,
    "task.max_length": COUNT,
    "task.max_source_length": COUNT,
    "task.max_target_length": COUNT,
    "tokenizer.min_frequency": FROM_0,
    "trainer.data_seed": SEED,
    "trainer.dataloader_num_workers": FROM_0,
    "trainer.eval_accumulation_steps": COUNT,
    "trainer.eval_steps": FROM_0,
    "trainer.gradient_accumulation_steps": COUNT,
    "trainer.label_smoothing_factor": SHARE,
    "trainer.learning_rate": FROM_0,
    "trainer.logging_steps": FROM_0,
    "trainer.max_grad_norm": Range(infinite=True),  # which is to clip nothing
    "trainer.per_device_eval_batch_size": COUNT,
    "trainer.per_device_train_batch_size": COUNT,
    "trainer.save_steps": FROM_0,
    "trainer.seed": SEED,
    "trainer.warmup_steps": FROM_0,
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
    "d_ff", "d_inner", "d_kv", "d_model", "dim", "embedding_size", "ffn_dim", "head_dim", "hidden_dim", "hidden_size",
    "intermediate_size", "max_position_embeddings", "n_ctx", "n_embd", "n_head", "n_heads", "n_inner", "n_layer",
    "n_layers", "n_positions", "num_attention_heads", "num_heads", "num_hidden_layers", "num_key_value_heads",
    "num_layers", "vocab_size", "window",
)  # fmt: skip
