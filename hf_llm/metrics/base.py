"""What every metric here shares: it lives in memory, in one process, and is found by its name."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

import datasets
import evaluate


class InMemoryMetric(evaluate.Metric):
    """An `evaluate.Metric` that touches neither the network nor the disk. Subclass with `name="..."`.

    Subclasses set `features` where they take anything else than predicted and true class ids, and define `_compute`,
    whose docstring becomes the metric's description. Batches added by `add_batch` are kept, two integers a row, so
    the result does not depend on how the rows were cut into batches.
    """

    registry: ClassVar[dict[str, type[InMemoryMetric]]] = {}
    inputs: ClassVar[datasets.Features] = datasets.Features(
        predictions=datasets.Value("int64"), references=datasets.Value("int64")
    )

    def __init_subclass__(cls, *, name: str, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        InMemoryMetric.registry[name] = cls

    def __init__(self, **options: Any) -> None:
        """`options` are defaults for the keywords of `compute`."""
        # Without a seed, evaluate reads numpy's global one; the metrics here draw nothing.
        super().__init__(keep_in_memory=True, seed=0)
        self.options = options

    def compute(self, **kwargs: Any) -> dict[str, Any]:
        """As in evaluate; raises ValueError where there is nothing to measure."""
        columns = [kwargs.get(name) for name in self.inputs]
        if self.writer is None and all(column is None or len(column) == 0 for column in columns):
            raise ValueError(f"{type(self).__name__}: no predictions were added, so there is nothing to compute")
        return super().compute(**{**self.options, **kwargs})

    def option_names(self) -> list[str]:
        """The keywords of `compute` beside its inputs."""
        return [name for name in inspect.signature(self._compute).parameters if name not in self.inputs]

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=inspect.getdoc(self._compute) or "",
            citation="",
            inputs_description="",
            features=self.inputs,
            format=None,  # lists: "numpy" would hand float64 columns over as float32
        )

    def _build_data_dir(self) -> str:
        return ""  # evaluate would make a folder in its cache here, even to keep all in memory
