"""What a person sees: one log voice (rank 0), a copy of it in the run directory, and tables."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_llm.config import plain, printable
from hf_llm.runs import is_main_process

if TYPE_CHECKING:
    from transformers import Trainer, TrainerCallback

logger = logging.getLogger("hf_llm")


def set_up() -> None:
    """Give the `hf_llm` logger its one handler, on standard error: standard output is for results."""
    if logger.handlers:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(_Printable("%(message)s"))
    handler.setLevel(logging.INFO if is_main_process() else logging.ERROR)
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logging.getLogger("huggingface_hub.utils._http").addFilter(_FirstRetry())


class _FirstRetry(logging.Filter):
    """Of a Hub that does not answer huggingface_hub tells twice at each of five attempts: once is enough."""

    told = False

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if "thrown while requesting" not in text and "Retrying in" not in text:
            return True
        first, self.told = not self.told, True
        return first


class _Printable(logging.Formatter):
    """What is said may quote a stranger's file."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


@contextlib.contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Copy what hf_llm, transformers and datasets say to `path`, with times, and every logged loss besides."""
    if not is_main_process():
        yield
        return
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.handleError = lambda record: None  # type: ignore[method-assign]  # of a full disk other things complain
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    voices = [logger, logging.getLogger("transformers"), logging.getLogger("datasets")]
    for voice in voices:
        voice.addHandler(handler)
    try:
        yield
    except BaseException:
        logger.debug("stopped", exc_info=True)
        raise
    finally:
        for voice in voices:
            voice.removeHandler(handler)
        handler.close()


def log_callback() -> TrainerCallback:
    """A Trainer callback that puts each log record (loss, learning rate, metrics) into the log file."""
    from transformers import TrainerCallback

    class LogRecords(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            logger.debug("step %d: %s", state.global_step, logs)

    return LogRecords()


def one_voice(trainer: Trainer) -> None:
    """Trainer reports from one process of each machine: from rank 0 alone."""
    from transformers import PrinterCallback, ProgressCallback

    if not is_main_process():
        for callback in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(callback)


def say(text: str) -> None:
    """A line on standard error, from rank 0 alone."""
    if is_main_process():
        print(printable(text), file=sys.stderr)


def show(pictures: Iterable[Any]) -> None:
    """What rich makes of each, on standard output."""
    from rich.console import Console

    Console().print(*pictures)


def show_metrics(metrics: Mapping[str, Mapping[str, Any]], title: str) -> None:
    """A table with a row per metric and a column per split; for a classifier another with a row per class.

    What comes from the data is `plain`.
    """
    if not is_main_process():
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    classes = _per_class(metrics)
    hidden = {name for by_score in classes.values() for name in by_score.values()}
    table = Table(title=plain(title, style="table.title"), title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("metric", no_wrap=True)
    for split in metrics:
        table.add_column(plain(split), justify="right")
    for name in dict.fromkeys(name for values in metrics.values() for name in values):
        cells = [values.get(name) for values in metrics.values()]
        averaged = name.endswith(("_micro", "_weighted"))
        if name not in hidden and not averaged and any(isinstance(cell, (int, float)) for cell in cells):
            table.add_row(plain(name), *(_figure(cell) for cell in cells))
    console = Console()
    console.print(table)
    if classes:
        own = [name for name, values in metrics.items() if hidden & values.keys()]
        split = ([name for name in own if "loss" in metrics[name]] or own)[-1]  # a baseline has none
        title = f"{split}, by class"
        table = Table(title=plain(title, style="table.title"), title_justify="left", box=box.SIMPLE_HEAD)
        table.add_column("class")
        for score in SCORES:
            table.add_column(score, justify="right")
        for label, by_score in classes.items():
            table.add_row(plain(label), *(_figure(metrics[split].get(by_score[score])) for score in SCORES))
        console.print(table)


SCORES = ("precision", "recall", "f1")


def _per_class(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Class -> score -> the metric's name (`f1_spam`), of the classes that every score is reported for."""
    names = {name for values in metrics.values() for name in values}
    averages = ("macro", "micro", "weighted")
    labels = [name.removeprefix("f1_") for name in sorted(names) if name.startswith("f1_")]
    labels = [label for label in labels if label not in averages and f"precision_{label}" in names]
    return {label: {score: f"{score}_{label}" for score in SCORES} for label in labels}


def _figure(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4f}"
