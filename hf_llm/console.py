"""What a person sees: one log voice (rank 0), a copy of it in the run directory, and tables."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_llm.runs import is_main_process

if TYPE_CHECKING:
    from transformers import TrainerCallback

logger = logging.getLogger("hf_llm")


def set_up() -> None:
    """Give the `hf_llm` logger its one handler, on standard error: standard output is for results."""
    if logger.handlers:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.setLevel(logging.INFO if is_main_process() else logging.ERROR)
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False


@contextlib.contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Copy what hf_llm, transformers and datasets say to `path`, with times, and every logged loss besides."""
    if not is_main_process():
        yield
        return
    handler = logging.FileHandler(path, encoding="utf-8")
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


def say(text: str) -> None:
    """A line on standard error, from rank 0 alone."""
    if is_main_process():
        print(text, file=sys.stderr)


def show_metrics(metrics: Mapping[str, Mapping[str, Any]], title: str) -> None:
    """A table with a row per metric and a column per split."""
    if not is_main_process():
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column("metric")
    for split in metrics:
        table.add_column(split, justify="right")
    names = list(dict.fromkeys(name for values in metrics.values() for name in values))
    for name in names:
        cells = [values.get(name) for values in metrics.values()]
        if any(isinstance(cell, (int, float)) for cell in cells):
            table.add_row(name, *(_figure(cell) for cell in cells))
    Console().print(table)


def _figure(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4f}"
