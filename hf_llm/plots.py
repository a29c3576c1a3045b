"""The pictures in a run directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")  # a cluster node has no screen
from matplotlib import font_manager
from matplotlib import pyplot as plt


def loss_curve(log_history: Sequence[dict[str, Any]], path: Path) -> None:
    """Training and validation loss over steps, from `trainer.state.log_history`."""
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for key, label, style in (("loss", "train", "-"), ("eval_loss", "validation", "o-")):
        points = [(entry["step"], entry[key]) for entry in log_history if key in entry]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=label, markersize=4)
    axes.set(xlabel="step", ylabel="loss (nats)")
    if axes.lines:
        axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    plt.close(figure)


# Fonts with Chinese, Japanese and Korean characters: matplotlib's own has none, and draws boxes.
CJK_FONTS = ("Noto Sans CJK SC", "Source Han Sans SC", "WenQuanYi Zen Hei", "PingFang SC", "Microsoft YaHei", "SimHei")


def _drawable(labels: Sequence[str]) -> list[str]:
    """The labels, with a font that has them where one is installed; else the class ids, which every font has."""
    if all(ord(character) < 0x2E80 for label in labels for character in label):
        return list(labels)
    installed = set(font_manager.get_font_names())
    fonts = [font for font in CJK_FONTS if font in installed]
    plt.rcParams["font.family"] = [*fonts, "DejaVu Sans"]
    return list(labels) if fonts else [str(index) for index in range(len(labels))]


def _plain(text: str) -> str:
    """The text as it stands: what is between two dollar signs matplotlib would read as a formula."""
    return text.replace("$", r"\$")


# How many classes there is room for, on the largest page.
MOST_INCHES = 20.0
MOST_NUMBERED = 30  # a count in each cell
MOST_NAMED = 60  # a name at each row and column


def confusion_matrix(matrix: Sequence[Sequence[int]], labels: Sequence[str], path: Path, title: str = "") -> None:
    """Rows are the true labels, columns the predicted; colours are shares of the row, so a rare class shows too."""
    side = min(max(4.0, 0.6 * len(labels) + 1.5), MOST_INCHES)
    counts = np.asarray(matrix)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = plt.subplots(figsize=(side, side), layout="constrained")
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(labels) <= MOST_NAMED:
        names = [_plain(label) for label in _drawable(labels)]
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
        axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted", ylabel="true", title=_plain(title))
    if len(labels) <= MOST_NUMBERED:
        for (i, j), count in np.ndenumerate(counts):
            axes.text(j, i, str(count), ha="center", va="center", color="white" if shares[i, j] > 0.5 else "black")
    figure.savefig(path, dpi=120)
    plt.close(figure)
