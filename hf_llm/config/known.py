"""What is known of single keys: new names, and values that cannot be."""

from __future__ import annotations

from typing import Any

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

# The least and the greatest value of a number that has one. transformers finds out late, in words that name no key.
AT_LEAST = {
    "batch_size": 1,
    "data.num_proc": 1,
    "early_stopping_patience": 1,
    "launcher.gpus_per_node": 0,
    "launcher.machine_rank": 0,
    "launcher.main_process_port": 0,
    "launcher.nodes": 1,
    "launcher.num_machines": 1,
    "launcher.num_processes": 1,
    "launcher.shutdown_timeout": 0,
    "launcher.tasks_per_node": 1,
    "launcher.timeout_min": 1,
    "seed": 0,
    "task.block_size": 1,
    "task.baseline": 1,
    "task.max_length": 1,
    "task.max_source_length": 1,
    "task.max_target_length": 1,
    "tokenizer.min_frequency": 0,
    "trainer.data_seed": 0,
    "trainer.dataloader_num_workers": 0,
    "trainer.eval_accumulation_steps": 1,
    "trainer.eval_steps": 0,
    "trainer.gradient_accumulation_steps": 1,
    "trainer.label_smoothing_factor": 0,
    "trainer.learning_rate": 0,
    "trainer.logging_steps": 0,
    "trainer.per_device_eval_batch_size": 1,
    "trainer.per_device_train_batch_size": 1,
    "trainer.save_steps": 0,
    "trainer.seed": 0,
    "trainer.warmup_steps": 0,
}
AT_MOST = {
    "seed": 2**32 - 1,
    "trainer.data_seed": 2**32 - 1,
    "trainer.label_smoothing_factor": 1,
    "trainer.seed": 2**32 - 1,
}
MAY_BE_INFINITE = ("trainer.max_grad_norm",)  # which is to clip nothing

# Sizes, under the names that the config classes of transformers and of this package give them: 1 at least. torch says
# so of some in words that name no key, and makes an empty model of others.
SIZES = (
    "d_ff", "d_inner", "d_kv", "d_model", "dim", "embedding_size", "ffn_dim", "head_dim", "hidden_dim", "hidden_size",
    "intermediate_size", "max_position_embeddings", "n_ctx", "n_embd", "n_head", "n_heads", "n_inner", "n_layer",
    "n_layers", "n_positions", "num_attention_heads", "num_heads", "num_hidden_layers", "num_key_value_heads",
    "num_layers", "vocab_size", "window",
)  # fmt: skip
