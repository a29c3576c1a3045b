"""A trained model, from a run, a folder or the Hub, as `evaluate`, `predict` and `generate` take it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hf_llm import libraries, offline, runs
from hf_llm.config import (
    FORMAT,
    DataConfig,
    DemoConfig,
    EvaluateConfig,
    GenerateConfig,
    InputError,
    ModelConfig,
    PredictConfig,
    TokenizerConfig,
    TrainConfig,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from hf_llm.tasks import Task

# What of a run's trainer settings an evaluation keeps; the rest is about training.
KEPT = ("seed", "per_device_eval_batch_size", "bf16_full_eval", "fp16_full_eval", "use_cpu", "dataloader_num_workers")
# What says where rows come from: a new source replaces all of it, and keeps how rows are read (columns, delimiter, …).
SOURCE = ("path", "files", "subset", "revision", "splits", "limits", "test_fraction", "streaming")


@dataclass
class SavedModel:
    """What was trained, and what a later verb needs to know of how."""

    task: Task
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    run: TrainConfig | None  # None where the model is no run of ours

    @property
    def data_seed(self) -> int:
        """What the run carved its validation split with; another would put training rows among those evaluated."""
        return self.run.trainer.get("seed", 42) if self.run else 42

    @property
    def run_format(self) -> int:
        """The format of the run's config.yaml, by whose rules its splits and samples are made again."""
        return self.run.format if self.run else FORMAT

    @property
    def labels(self) -> list[str] | None:
        """Class names in id order, for a classifier."""
        config: Any = self.model.config
        return [config.id2label[index] for index in range(config.num_labels)] if self.task.has_classes else None

    def data(self, given: dict[str, Any]) -> DataConfig:
        """The run's data with what is given laid over it; a new path or file is a new source."""
        base = vars(self.run.data).copy() if self.run else {}
        if given.get("path") or given.get("files"):
            base = {key: value for key, value in base.items() if key not in SOURCE}
        given = {key: value for key, value in given.items() if value is not None}
        merged = {key: {**base.get(key, {}), **given.get(key, {})} for key in ("columns", "limits")}
        return DataConfig(**{**base, **given, **merged})

    def trainer(self, given: dict[str, Any]) -> dict[str, Any]:
        """The run's trainer settings that an evaluation keeps, with what is given laid over them."""
        base = self.run.trainer if self.run else {}
        return {**{key: base[key] for key in KEPT if key in base}, **given}


def load(cfg: EvaluateConfig | PredictConfig | GenerateConfig | DemoConfig) -> SavedModel:
    """Load the model that `cfg.run` or `cfg.model.pretrained` names, and its tokenizer, in evaluation mode.

    Raises:
        InputError: there is no such run or model, or it is of a task that the verb does not know.
    """
    if cfg.offline:
        offline.switch_on()
        offline.check(None, None, ModelConfig(pretrained=cfg.model.pretrained, revision=cfg.model.revision))
    source, run = locate(cfg)

    libraries.load()
    from hf_llm import models, tasks
    from hf_llm import tokenizer as tokenizers

    given = dict(getattr(cfg, "task", {}))
    if not run and not given.get("name"):
        given["name"] = tasks.for_architecture(_architecture(cfg))
    base = dict(run.task) if run else {}
    options = {**(base if given.get("name", base.get("name")) == base.get("name") else {}), **given}
    task = tasks.get(options, ModelConfig(pretrained=source, revision=cfg.model.revision))
    tokenizer = tokenizers.load(
        TokenizerConfig(pretrained=source, revision=cfg.model.revision), None, special_tokens=task.special_tokens
    )
    model = models.build(
        ModelConfig(pretrained=source, revision=cfg.model.revision),
        auto_model=task.auto_model,
        tokenizer=tokenizer,
        max_length=task.longest_input(),
        trained=True,
    )
    return SavedModel(task, model.eval(), tokenizer, run)


def locate(cfg: Any) -> tuple[str, TrainConfig | None]:
    """Where the model is that `cfg` names (a folder or a Hub id), and the configuration of the run it is of, if any.

    `cfg.run` may be a repository of the Hub, OWNER/NAME, that a run was pushed to. Of such a run, pulled before or
    not, what its configuration says of files and settings of another machine is left out.
    """
    if not cfg.run:
        return cfg.model.pretrained, None
    from hf_llm import hub
    from hf_llm.hub import capsule, pull

    if not hub.is_pushed_run(cfg.run):
        folder = runs.find(cfg)
        pulled = pull.origin(folder) is not None
        config = capsule.published(folder / runs.CONFIG) if pulled else runs.load_config(folder)
        return str(folder / runs.MODEL), config
    fetched = pull.snapshot(cfg.run)
    if not pull.has_run(fetched):
        raise InputError(
            f"run={cfg.run}: no run was pushed there; a bare model is given as model.pretrained={cfg.run}"
        )
    return str(fetched), capsule.published(fetched / hub.RUN_FOLDER / runs.CONFIG)


def _architecture(cfg: Any) -> str:
    from hf_llm import models  # noqa: F401  registers rnn and fnn
    from hf_llm.models.checkpoint import load_config

    source = cfg.model.pretrained
    config = load_config(source, cfg.model.revision, {}, None)
    if not config.architectures:
        raise InputError(f"model.pretrained={source}: its config.json names no architecture; give task=NAME")
    return config.architectures[0]
