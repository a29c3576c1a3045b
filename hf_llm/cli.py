"""`hf-llm VERB [override …]`: composes the configuration with Hydra, checks it, and hands it to the verb.

It and overrides.py are the only modules that import Hydra. The heavy libraries are imported when a verb really runs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import itertools
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hf_llm import distributed, runs
from hf_llm.config import VERBS, InputError, TrainConfig, check, defaults, nearest, printable
from hf_llm.config.paths import CONF
from hf_llm.help import overview, verb_help
from hf_llm.interruption import Interrupted
from hf_llm.overrides import prepare, swept_keys

# verb -> (module, function, what it does)
HANDLERS = {
    "train": ("hf_llm.training", "train", "train a model; the same command again resumes it, or says it is complete"),
    "evaluate": ("hf_llm.evaluation", "evaluate", "measure a trained run, or any saved model, on a split or a file"),
    "predict": ("hf_llm.prediction", "predict", "label the rows of a file or of standard input, as JSON lines"),
    "generate": ("hf_llm.generation", "generate", "continue a prompt, or every prompt of a file"),
    "push": ("hf_llm.publishing", "push", "send a finished run to the Hub, with its model card"),
    "pull": ("hf_llm.publishing", "pull", "bring a pushed run back as a run directory"),
    "rerun": ("hf_llm.rerunning", "rerun", "train a run again from what it left behind, and compare"),
    "demo": ("hf_llm.demo", "demo", "open a page in the browser on which to try a trained model"),
}

# No timestamped directories, no directory change, no log set-up of its own: the run directory is ours (runs.py).
HYDRA_SETTINGS = {
    "hydra.run.dir": ".",
    "hydra.output_subdir": "null",
    "hydra.job.chdir": "false",
    "hydra.sweep.subdir": ".",
    "hydra/job_logging": "none",
    "hydra/hydra_logging": "none",
}


def main(argv: list[str] | None = None) -> None:
    """Entry point of the `hf-llm` command. Exit code 2: the input is wrong, as one line on standard error says."""
    argv = list(sys.argv[1:] if argv is None else argv)
    with one_line_errors():
        _main(argv[0] if argv else "--help", argv[1:])


def _main(verb: str, argv: list[str]) -> None:
    if verb in ("-h", "--help", "help"):
        print(overview(HANDLERS, CONF))
    elif verb == "--version":
        from hf_llm import __version__

        print(f"hf_llm {__version__}")
    elif verb not in VERBS:
        hint = nearest(verb, VERBS)
        raise InputError(
            f"{verb}: no such verb; " + (f"did you mean {hint}?" if hint else f"one of {', '.join(VERBS)}")
        )
    elif {"-h", "--help"} & set(argv):
        print(verb_help(verb, HANDLERS, CONF, _config_dir(argv)))
    else:
        _run(verb, argv)


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """What the user got wrong is one line and exit code 2; else it is a fault of ours, and keeps its traceback."""
    try:
        yield
    except BrokenPipeError:  # the reader of our output, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt as interrupt:
        if os.environ.get("HF_LLM_DEBUG"):
            raise
        if runs.is_main_process():
            print(f"hf-llm: {interrupt or 'interrupted'}", file=sys.stderr)
        sys.exit(interrupt.exit_code if isinstance(interrupt, Interrupted) else 130)
    except Exception as error:
        theirs = ("hydra", "omegaconf", "yaml")  # of reading the configuration, which is where they are used
        wrong_input = isinstance(error, InputError) or type(error).__module__.split(".")[0] in theirs
        if os.environ.get("HF_LLM_DEBUG"):
            raise
        if not distributed.may_speak(error):
            sys.exit(2 if wrong_input else 1)
        if not wrong_input:
            raise
        text = str(error) if isinstance(error, InputError) else " ".join(str(error).split())
        print(printable(f"hf-llm: {text}"), file=sys.stderr)
        sys.exit(2)


def compose(verb: str = "train", *overrides: str, config_dir: str | None = None) -> Any:
    """The checked configuration of a verb, as the command line would compose it.

    Args:
        verb: train, evaluate, predict or generate; may be left out for train: `compose("model=rnn")`.
        overrides: as on the command line: "model=gpt2", "trainer.learning_rate=3e-4".
        config_dir: a folder of your own with more YAML files, as `--config-dir`.

    Returns:
        A `TrainConfig`, `EvaluateConfig`, `PredictConfig` or `GenerateConfig`.

    Raises:
        InputError: naming every mistake in the overrides.
    """
    if verb not in VERBS and "=" in verb:
        verb, overrides = "train", (verb, *overrides)
    if verb not in VERBS:
        raise InputError(f"{verb}: no such verb; one of {', '.join(VERBS)}")
    rewritten, mistakes = prepare(verb, list(overrides), _folders(config_dir))
    return _resolved(check(_composed(verb, rewritten, config_dir), VERBS[verb], mistakes))


def _resolved(cfg: Any) -> Any:
    """`cfg`; of a training with the settings that nobody gave, those of its time where the run has begun."""
    if isinstance(cfg, TrainConfig):
        cfg.format = runs.format_of(cfg)
        defaults.resolve(cfg)
    return cfg


def _run(verb: str, argv: list[str]) -> None:
    """Hand over to Hydra, with its flags (`--cfg`, `--info`, `-m`, `--config-dir`, …) as in any Hydra application."""
    import hydra

    argv = ["dry_run=true" if part == "--dry-run" else part for part in argv]
    args = _parsed(verb, argv)
    overrides, mistakes = prepare(verb, args.overrides, _folders(args.config_dir))
    # Hydra would stop at the first mistake, and would print (--cfg, --info) with any: name them all together.
    if mistakes or args.cfg or args.info:
        composed = _composed(verb, overrides, args.config_dir)
        given = set(composed.get("trainer") or {})
        cfg = _resolved(check(composed, VERBS[verb], mistakes))
        if verb == "train":  # so that Hydra prints them too
            overrides += [f"++trainer.{key}={value}" for key, value in cfg.trainer.items() if key not in given]
    if args.multirun and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise InputError("-m inside a distributed launch would sweep in every process: launch each trial by itself")
    given = {override.split("=")[0].lstrip("+~") for override in args.overrides}
    settings = [f"{key}={value}" for key, value in HYDRA_SETTINGS.items() if key not in given]
    flags = [part for part in argv if part not in args.overrides]
    swept = swept_keys(overrides)

    def job(composed: Any) -> None:
        sys.argv = command
        with one_line_errors():  # in here, lest Hydra print its own words first
            cfg: Any = check(_plain(composed), VERBS[verb])
            if args.multirun and verb == "train":
                cfg.run = _trial_name(cfg, composed, swept)
            cfg = _resolved(cfg)
            if verb == "train" and cfg.launcher.name != "local" and "WORLD_SIZE" not in os.environ:
                from hf_llm.launching import launch_command

                launch_command(cfg, args.config_dir)
            else:  # of one process, or in one that torchrun, accelerate or srun started
                _handler(verb)(cfg)

    _register_schemas()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach main(), which says them in one line
    command = sys.argv
    with tempfile.TemporaryDirectory() as scratch:  # a sweep writes a multirun.yaml that no one asked for
        sys.argv = [f"hf-llm {verb}", *settings, f"hydra.sweep.dir={scratch}", *overrides, *flags]
        try:
            hydra.main(version_base="1.3", config_path=str(CONF), config_name=verb)(job)()
        finally:
            sys.argv = command


def _parsed(verb: str, argv: list[str]) -> Any:
    """Hydra's flags, and the overrides before, between and after them."""
    from hydra._internal.utils import get_args_parser

    def refuse(message: str) -> None:
        raise InputError(f"{message} (`hf-llm {verb} --help` lists the flags)")

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[assignment,method-assign]
    args = parser.parse_intermixed_args(argv)
    if args.shell_completion:
        refuse("--shell-completion: there is none")
    if args.resolve and not args.cfg:
        refuse("--resolve goes with --cfg job")
    return args


def _handler(verb: str) -> Callable[[Any], Any]:
    module, function, _ = HANDLERS[verb]
    return getattr(importlib.import_module(module), f"{function}_command")


def _folders(config_dir: str | None) -> list[Path]:
    if config_dir and not Path(config_dir).is_dir():
        raise InputError(f"--config-dir {config_dir}: no such folder")
    return [CONF, *([Path(config_dir)] if config_dir else [])]


def _composed(verb: str, overrides: list[str], config_dir: str | None) -> dict[str, Any]:
    import hydra

    _register_schemas()
    search_path = [f"hydra.searchpath=[file://{Path(config_dir).resolve()}]"] if config_dir else []
    with hydra.initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        return _plain(hydra.compose(config_name=verb, overrides=[*search_path, *overrides]))


def _plain(composed: Any) -> dict[str, Any]:
    """A DictConfig -> plain containers: a ListConfig breaks JSON, model cards and pickles."""
    from omegaconf import OmegaConf

    return OmegaConf.to_container(composed, resolve=True, throw_on_missing=False)  # type: ignore[return-value]


def _register_schemas() -> None:
    """The defaults of every verb's dataclass, as `<verb>_schema`; untyped, for `check` is to name all mistakes."""
    from hydra.core.config_store import ConfigStore

    for verb, schema in VERBS.items():
        ConfigStore.instance().store(name=f"{verb}_schema", node=_without_nulls(dataclasses.asdict(schema())))


def _without_nulls(node: dict[str, Any]) -> dict[str, Any]:
    """A null would hide a `???` (a value left for the user to give) that a YAML puts in its place."""
    return {
        key: _without_nulls(value) if isinstance(value, dict) else value
        for key, value in node.items()
        if value is not None
    }


def _trial_name(cfg: Any, composed: Any, swept: list[str]) -> str:
    """A trial of a sweep is a run of its own: `<run>-learning_rate=0.001`. Without, the second would be refused."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    chosen = HydraConfig.get().runtime.choices
    values = [
        (key, chosen[key] if key in chosen else OmegaConf.select(composed, key)) for key in swept if key != "run"
    ]
    suffix = ",".join(f"{key.split('.')[-1]}={value}" for key, value in values)
    suffix = re.sub(r"[^\w.=,-]+", "_", suffix)  # a folder's name: no slash of a path leaves the runs' directory
    return f"{cfg.run or runs.default_name(cfg)}-{suffix}" if suffix else cfg.run


def _config_dir(argv: list[str]) -> str | None:
    """Of `--config-dir DIR` or `--config-dir=DIR`, without Hydra: help is to be there in a moment."""
    given = [*itertools.pairwise(argv), *(arg.split("=", 1) for arg in argv if "=" in arg)]
    return next((value for flag, value in given if flag in ("--config-dir", "-cd")), None)
