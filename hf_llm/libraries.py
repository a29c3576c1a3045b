"""Imports torch, transformers and datasets faster: with the garbage collector off while they are read in.

It also warns of releases that hf_llm was not tested with.
"""

from __future__ import annotations

import functools
import gc
import importlib.metadata
import logging

logger = logging.getLogger(__name__)

# pyproject.toml leaves torch without an upper bound, because its build has to suit the GPU.
TORCH_TESTED = "torch<2.14"


def load() -> None:
    """What every verb needs sooner or later, at once.

    They make millions of objects that stay to the end, and the collector goes through them again and again: off,
    they take a sixth less time. Frozen, they are not gone through at exit either, which saves another second.
    """
    warn_of_untested()
    was_on = gc.isenabled()
    gc.disable()
    try:
        import datasets  # noqa: F401
        import transformers.trainer  # noqa: F401
    finally:
        gc.freeze()
        if was_on:
            gc.enable()


@functools.cache
def warn_of_untested() -> None:
    """Log one line, once, if an installed release is outside the range that this hf_llm declares as tested."""
    from packaging.requirements import Requirement

    found = {}
    for text in [*(importlib.metadata.requires("hf_llm") or ()), TORCH_TESTED]:
        requirement = Requirement(text)
        try:
            installed = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:  # of an extra
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            found[requirement.name] = f"{requirement.name} {installed} (tested: {requirement.specifier})"
    if found:
        logger.warning(
            "hf_llm was not tested with %s: figures may differ. constraints.txt has the newest releases that it was "
            "tested with",
            ", ".join(found.values()),
        )
