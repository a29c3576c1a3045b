"""The trainer's settings that nobody gave, by what is trained.

A file of conf/defaults has them for one kind of model: encoder, decoder, encoder–decoder, RNN or FNN, from scratch or
pretrained. A recipe and the command line override them. Neither torch nor transformers is imported: which kind an
architecture is of, transformers' own tables tell, read from their source; of a checkpoint, its config.json.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from hf_llm.config import declared
from hf_llm.config.paths import CONF
from hf_llm.config.schema import TrainConfig

FOLDER = CONF / "defaults"
WIDTH = ("hidden_size", "n_embd", "d_model", "dim")
DEPTH = ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "encoder_layers")
IN_WORDS = {
    "decoder": "a decoder from scratch",
    "encoder": "an encoder from scratch",
    "encoder_decoder": "an encoder–decoder from scratch",
    "fnn": "an FNN",
    "format_1": "any model of a run of format 1",
    "pretrained_decoder": "a pretrained decoder",
    "pretrained_encoder": "a pretrained encoder",
    "pretrained_encoder_decoder": "a pretrained encoder–decoder",
    "rnn": "an RNN",
}
RECURRENT = {"rnn": "rnn", "fnn": "fnn", "hf_llm_rnn": "rnn", "hf_llm_fnn": "fnn"}
LEAST_RATIO, MOST_RATIO = 0.01, 4.0  # beyond these sizes nothing was measured or published: the rate stays


class Usual(NamedTuple):
    """The settings that suit what is trained, and what that is."""

    settings: dict[str, Any]
    kind: str  # the file of conf/defaults
    width: int | None
    depth: int | None
    least_steps: int | None  # for few rows: so many, with as many epochs as that takes

    @property
    def described(self) -> str:
        """`a pretrained encoder of 6 layers of 384`."""
        size = f" of {self.depth} layers of {self.width}" if self.width and self.depth else ""
        return IN_WORDS[self.kind] + size


def resolve(cfg: TrainConfig) -> None:
    """Lay the usual settings under those that `cfg.trainer` has."""
    found = usual(cfg)
    if not {"num_train_epochs", "max_steps"} & cfg.trainer.keys():
        cfg.least_steps = cfg.least_steps or found.least_steps
    cfg.trainer = {**found.settings, **cfg.trainer}


def usual(cfg: TrainConfig) -> Usual:
    """The settings for what `cfg` trains; the learning rate is scaled to the size of the model.

    Wider and deeper models take a lower rate: it falls with a power of width times depth, which each file gives. That
    leads from the models that the files were measured on to the rates that papers give for others.
    """
    if cfg.format == 1:
        return Usual(dict(_read("format_1")["settings"]), "format_1", None, None, None)
    config = _checkpoint_config(cfg) if cfg.model.pretrained else cfg.model.config
    model_type = str(config.get("model_type") if cfg.model.pretrained else cfg.model.arch)
    kind = _kind(model_type, config, cfg)
    defaults = _read(kind)
    unit = declared.task_attribute(cfg.task["name"], "unit") or "rows"
    settings = dict(defaults[unit])
    settings.update(defaults.get(cfg.task["name"], {}))
    width, depth = (_size(names, config, model_type) for names in (WIDTH, DEPTH))
    if width and depth:
        reference = defaults["reference"]
        ratio = reference["hidden_size"] * reference["num_hidden_layers"] / (width * depth)
        scale = min(MOST_RATIO, max(LEAST_RATIO, ratio)) ** defaults["scaling"]
        settings["learning_rate"] = float(f"{settings['learning_rate'] * scale:.1e}")
    return Usual(settings, kind, width, depth, defaults["least_steps"] if unit == "rows" else None)


def _kind(model_type: str, config: Mapping[str, Any], cfg: TrainConfig) -> str:
    if model_type in RECURRENT:
        return RECURRENT[model_type]
    families = {
        "encoder_decoder": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
        "encoder": "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
        "decoder": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    }
    by_task = {"causal_lm": "decoder", "translation": "encoder_decoder"}.get(cfg.task["name"], "encoder")
    found = [family for family, table in families.items() if model_type in declared.model_types(table)]
    family = found[0] if found else by_task  # an architecture of the user's own
    if config.get("is_encoder_decoder") is True:
        family = "encoder_decoder"
    elif cfg.task["name"] == "causal_lm":
        family = "decoder"
    return f"pretrained_{family}" if cfg.model.pretrained else family


@lru_cache
def _read(kind: str) -> dict[str, Any]:
    return yaml.safe_load((FOLDER / f"{kind}.yaml").read_text(encoding="utf-8"))


def _size(names: tuple[str, ...], config: Mapping[str, Any], model_type: str) -> int | None:
    """The first of `names` in `config`, else what the architecture's config class has for it."""
    found = [config[name] for name in names if name in config]
    if not found:
        found = [value for name in names if (value := declared.model_default(model_type, name))]
    return found[0] if found and isinstance(found[0], int) and found[0] > 0 else None


def _checkpoint_config(cfg: TrainConfig) -> dict[str, Any]:
    """A checkpoint's config.json; {} where it cannot be read, which loading the model will report."""
    folder = Path(str(cfg.model.pretrained)).expanduser()
    try:
        text = (folder / "config.json").read_text(encoding="utf-8") if folder.is_dir() else _of_hub(cfg)
        loaded = json.loads(text)
    except Exception:  # which HTTP library it is, and so whose exceptions, depends on huggingface_hub's version
        return {}
    if isinstance(loaded, dict) and isinstance(text_config := loaded.get("text_config"), dict):
        loaded = {**loaded, **text_config}
    return loaded if isinstance(loaded, dict) else {}


def _of_hub(cfg: TrainConfig) -> str:
    """config.json of a repository: from the cache, or by one request. Loading the model will try more than once."""
    from huggingface_hub import constants, get_session, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.utils import build_hf_headers

    repo, revision = str(cfg.model.pretrained), cfg.model.revision
    cached = try_to_load_from_cache(repo, "config.json", revision=revision)
    if isinstance(cached, str):
        return Path(cached).read_text(encoding="utf-8")
    if cfg.offline or constants.HF_HUB_OFFLINE:
        raise FileNotFoundError("config.json")
    url = hf_hub_url(repo, "config.json", revision=revision)
    response = get_session().get(url, headers=build_hf_headers(), timeout=10, follow_redirects=True)
    return response.raise_for_status().text
