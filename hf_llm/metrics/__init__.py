"""Metrics that need no network: `evaluate.Metric` subclasses, computed in memory by one process.

To add one, put a file in this folder with a subclass of `base.InMemoryMetric`; `load` finds it by its name.
`language_modeling` is plain arithmetic and imports neither evaluate nor scikit-learn, which take seconds.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

from hf_llm.config import InputError, nearest

if TYPE_CHECKING:
    import evaluate


def classification_report(*args: Any, **kwargs: Any) -> dict[str, Any]:
    """`classification.classification_report`, imported when first called."""
    from hf_llm.metrics import classification

    return classification.classification_report(*args, **kwargs)


def names() -> list[str]:
    """The names that `load` knows, sorted."""
    return sorted(_registry())


def load(name: str, **options: Any) -> evaluate.Metric:
    """The metric called `name`; `options` become the defaults of its `compute`.

    Args:
        options: for a classifier's metrics `labels` (names in id order) and `positive_label` (one of them).

    Raises:
        InputError: an unknown name, one with "/" (which would be code from the Hub), or an unknown option.
    """
    if "/" in name:
        raise InputError(
            f"metric {name} would run code from the Hub, which is refused; there are {', '.join(names())}"
        )
    registry = _registry()
    if name not in registry:
        raise InputError(f"metric {name} is unknown{_hint(name, registry)} (there are {', '.join(names())})")
    metric = registry[name]()
    known = metric.option_names()
    for option in options:
        if option not in known:
            raise InputError(f"metric {name} has no option {option}{_hint(option, known)}")
    metric.options = options
    return metric


def _registry() -> dict[str, type]:
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    from hf_llm.metrics.base import InMemoryMetric

    return InMemoryMetric.registry


def _hint(name: str, names) -> str:
    near = nearest(name, names, cutoff=0.5)
    return f"; did you mean {near}?" if near else ""
