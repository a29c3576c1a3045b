"""The Hub: a run's model card, what of it is published, sending it, fetching one, and reading one from a stranger."""

from __future__ import annotations

import re
from pathlib import Path

# The places of a run's own files in its repository, whose root holds the model as transformers saves it.
RUN_FOLDER = "run"
PUSHED = "pushed.json"  # in it: which files the last push put there
CARD = "README.md"
REQUIREMENTS = "requirements.txt"

_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


def is_repo_id(name: str) -> bool:
    """Whether `name` is OWNER/NAME, as the Hub has it, and no folder that is here."""
    return bool(_ID.fullmatch(name)) and ".." not in name and "--" not in name and not Path(name).exists()


def is_pushed_run(name: str) -> bool:
    """Whether `run=NAME` means a repository of the Hub: OWNER/NAME, and OWNER no folder that is here."""
    return is_repo_id(name) and not Path(name).parent.is_dir()
