"""Checkpoints that count only when they are whole: written aside, sealed with a manifest, synced, then renamed.

outputs/<run>/.checkpoint-30/    being written; never looked at
outputs/<run>/checkpoint-30/     whole: Trainer's own files, and manifest.json with the size and SHA-256 of each
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

from hf_llm.config import InputError

logger = logging.getLogger(__name__)

MANIFEST, TRAINER_STATE = "manifest.json", "trainer_state.json"
PREFIX = "checkpoint-"
REPLACED = ".replaced"
CHUNK = 1 << 20  # bytes


def folders(run: Path) -> list[Path]:
    """The checkpoints of a run, whole or not, by step."""
    found = [path for path in run.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdecimal()]
    return sorted(found, key=step)


def step(checkpoint: Path) -> int:
    """After how many optimizer steps it was saved."""
    return int(checkpoint.name.removeprefix(PREFIX))


def seal(aside: Path, checkpoint: Path, facts: dict[str, Any]) -> None:
    """Make what was written to `aside` the checkpoint: from its last rename on it counts, and before it does not.

    Args:
        facts: what a later resume is to know of the training (its manifest holds them).
    """
    files = sorted(path for path in aside.rglob("*") if path.is_file())
    contents = {str(path.relative_to(aside)): {"size": path.stat().st_size, "sha256": digest(path)} for path in files}
    manifest = aside / MANIFEST
    manifest.write_text(json.dumps({**facts, "files": contents}, indent=1), encoding="utf-8")
    for path in [*files, manifest, *(path for path in aside.rglob("*") if path.is_dir()), aside]:
        _sync(path)
    if checkpoint.exists():  # of the same step: a damaged one, or one from before a pending evaluation
        replaced = checkpoint.with_name(f".{checkpoint.name}{REPLACED}")
        shutil.rmtree(replaced, ignore_errors=True)
        checkpoint.rename(replaced)
        aside.rename(checkpoint)
        shutil.rmtree(replaced, ignore_errors=True)
    else:
        aside.rename(checkpoint)
    _sync(checkpoint.parent)


def digest(path: Path) -> str:
    """The SHA-256 (hex) of a file."""
    running = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            running.update(chunk)
    return running.hexdigest()


def _sync(path: Path) -> None:
    """Have the disk hold it, not only the system's memory."""
    if os.name == "nt" and path.is_dir():  # Windows opens no folders
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def facts(checkpoint: Path) -> dict[str, Any]:
    """What `seal` was told; {} for a checkpoint that something else made."""
    path = checkpoint / MANIFEST
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a sealed checkpoint, in words; None where every file is as it was written."""
    try:
        manifest = facts(checkpoint)
        if not manifest:
            return f"not complete (no {MANIFEST})"
        for name, wanted in manifest["files"].items():
            path = checkpoint / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != wanted["size"]:
                return f"{name} has {path.stat().st_size:,} bytes of {wanted['size']:,}"
            if digest(path) != wanted["sha256"]:
                return f"{name} is not what was written (SHA-256)"
    except OSError as error:
        return f"{Path(error.filename or checkpoint).name} cannot be read ({error.strerror})"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} is damaged"
    return None


def last_good(run: Path) -> str | None:
    """The newest whole checkpoint of a run, or None. Every one passed over is named, with what is wrong with it."""
    for checkpoint in reversed(folders(run)):
        wrong = damage(checkpoint)
        if wrong is None:
            return str(checkpoint)
        logger.warning("%s is passed over: %s", checkpoint, wrong)
    return None


def check_given(checkpoint: str) -> None:
    """Raises InputError where `trainer.resume_from_checkpoint` names none, or a damaged one."""
    here = f"trainer.resume_from_checkpoint={checkpoint}"
    if not (Path(checkpoint) / TRAINER_STATE).is_file():
        raise InputError(f"{here}: no checkpoint there (no {TRAINER_STATE})")
    if (Path(checkpoint) / MANIFEST).is_file() and (wrong := damage(Path(checkpoint))):
        raise InputError(f"{here}: {wrong}; leave it out to go on from the newest that is whole")


def rotate(run: Path, keep: int | None, newest: Path, best: str | None) -> None:
    """Delete checkpoints, the oldest first, until `keep` are left; never `newest`, just sealed, nor the best.

    Those of later steps than `newest` are what a resume passed over, or went back behind: they go before any other.
    By step and not by time (Trainer's way), for a clock may be set back.
    """
    if not keep or keep < 0:
        return
    present = folders(run)
    protected = {newest, Path(best) if best else newest}
    spare = [path for path in present if path not in protected]
    spare.sort(key=lambda path: (step(path) <= step(newest), step(path)))
    for checkpoint in spare[: max(0, len(present) - max(keep, len(protected)))]:
        shutil.rmtree(checkpoint, ignore_errors=True)


def recover(run: Path) -> None:
    """Clear away what a save that was cut off has left; what it had sealed already, or taken aside, counts again."""
    for path in sorted(run.glob(f".{PREFIX}*")):
        checkpoint = run / path.name.removeprefix(".").removesuffix(REPLACED)
        if not checkpoint.exists() and damage(path) is None:
            path.rename(checkpoint)
        else:
            shutil.rmtree(path, ignore_errors=True)
