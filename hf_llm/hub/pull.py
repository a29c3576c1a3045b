"""A run that was pushed, fetched: as files of the Hub's cache, or as a run directory of this machine."""

from __future__ import annotations

import shutil
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled
from huggingface_hub.utils import filter_repo_objects

from hf_llm import runs
from hf_llm.checkpoints import digest
from hf_llm.config import InputError
from hf_llm.hub import CARD, RUN_FOLDER, capsule
from hf_llm.hub.push import explained

# What a model, its tokenizer and its run are made of. A pickle is never fetched; code is, and is not run.
WANTED = [
    *("*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model", "*.jinja", "*.py", "*.png", CARD),
    f"{RUN_FOLDER}/*.yaml",
]
UNWANTED = ["*adapter_config.json"]  # it would have transformers load another model, or change the run's weights

ORIGIN = "pulled_from"  # in environment.json of a run that was pulled


def snapshot(repo: str, revision: str | None = None) -> Path:
    """The repository's files in the cache; what is there already is not fetched again.

    Raises:
        InputError: there is no such repository, it is not to be seen, or not to be reached.
    """
    import httpx2

    try:
        with explained(f"repo={repo}"):
            try:
                fetched = snapshot_download(repo, revision=revision, allow_patterns=WANTED, ignore_patterns=UNWANTED)
                return _as_promised(repo, Path(fetched))
            except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
                cause = error.__cause__
                not_asked = (LocalEntryNotFoundError, OfflineModeIsEnabled)
                if isinstance(cause, (httpx2.HTTPError, OSError)) and not isinstance(cause, not_asked):
                    raise cause from error
                raise InputError(
                    f"repo={repo}: not on this machine, and the Hub is not to be asked or cannot be reached"
                ) from error
            except ValueError as error:
                if isinstance(error, (InputError, HFValidationError)):
                    raise
                raise InputError(
                    f"repo={repo}: a file in it is none to take ({' '.join(str(error).split())})"
                ) from error
    except InputError as error:
        at = f" at revision {revision}" if revision else ""
        raise InputError(f"{error}{at}") from error


def _as_promised(repo: str, folder: Path) -> Path:
    """The snapshot, whose weights are what the Hub said they would be: their name in its cache is their SHA-256.

    Raises:
        InputError: a file is not; it is taken out of the cache, so that the next call fetches it again.
    """
    for path in sorted(folder.glob("*.safetensors")):
        blob = path.resolve()
        if len(blob.name) == 64 and digest(blob) != blob.name:
            blob.unlink()
            path.unlink()
            raise InputError(
                f"repo={repo}: {path.name} is not what was sent (its checksum is another): fetch it again"
            )
    return folder


def origin(folder: Path) -> str | None:
    """The repository that the run directory was pulled from; None of a run that was trained here."""
    return capsule.record(folder / runs.ENVIRONMENT).get(ORIGIN)


def has_run(folder: Path) -> bool:
    """Whether a snapshot is of a run that was pushed, or else of a model alone."""
    return (folder / RUN_FOLDER / runs.CONFIG).is_file()


def unpack(repo: str, revision: str | None, folder: Path) -> None:
    """Make the run directory `folder` of a repository, whole or not at all.

    Raises:
        InputError: the folder is there already, or the repository holds no run.
    """
    try:
        taken = folder.exists()
    except OSError as error:  # of a name that no file system takes
        raise InputError(f"run={folder.name}: {runs.reason(error)}") from error
    if taken:
        raise InputError(f"{folder} is there already: give the run another name (run=NAME)")
    fetched = snapshot(repo, revision)
    if not has_run(fetched):
        raise InputError(
            f"repo={repo}: no run of this project ({RUN_FOLDER}/{runs.CONFIG} is not there); "
            f"a bare model is taken as it is: model.pretrained={repo}"
        )
    capsule.published(fetched / RUN_FOLDER / runs.CONFIG)
    record = capsule.record(fetched / RUN_FOLDER / runs.ENVIRONMENT)
    aside = folder.with_name(f".{folder.name}.pulling")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        (aside / runs.MODEL).mkdir(parents=True)
        for path in _wanted(fetched):
            target = aside / _place(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(fetched / path, target)
        runs.write_json(aside / runs.ENVIRONMENT, {**record, ORIGIN: repo})
        aside.rename(folder)
    except OSError as error:
        raise InputError(f"{folder} could not be written: {runs.reason(error)}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _wanted(fetched: Path) -> list[Path]:
    """The files of a snapshot that `snapshot` asks for; something else may have put others into the cache."""
    files = sorted(path.relative_to(fetched) for path in fetched.rglob("*") if path.is_file())
    return list(filter_repo_objects(files, allow_patterns=WANTED, ignore_patterns=UNWANTED, key=Path.as_posix))


def _place(path: Path) -> Path:
    """Where a file of the repository belongs in a run directory."""
    if path.parts[0] == RUN_FOLDER and len(path.parts) == 2:
        return Path(path.name)
    if path.name == CARD or (path.suffix == ".png" and len(path.parts) == 1):
        return path
    return Path(runs.MODEL) / path
