"""`push` and `pull`: a run to the Hub and back; and what `train` does where `trainer.push_to_hub=true`."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hf_llm import console, libraries, runs
from hf_llm.config import CardConfig, InputError, PullConfig, PushConfig, TrainConfig

if TYPE_CHECKING:
    from hf_llm.hub.published import File
    from hf_llm.hub.push import Pushed

logger = logging.getLogger(__name__)


def push(cfg: PushConfig) -> Pushed:
    """Write the run's card, then send what a user of the model needs to the Hub; with `dry_run` send nothing.

    Raises:
        InputError: no such finished run, a file that should not go out, or the Hub refuses; the run is left intact.
    """
    console.set_up()
    libraries.warn_of_untested()
    folder = runs.find(cfg)
    _check_finished(folder)
    assert cfg.repo is not None
    return _push(folder, runs.load_config(folder), cfg)


def _push(folder: Path, run: TrainConfig, cfg: PushConfig) -> Pushed:
    from hf_llm.hub import card, published, pull
    from hf_llm.hub import push as hub

    repo = hub.whole_name(cfg.repo or folder.resolve().name, ask=not cfg.dry_run)
    own = CardConfig() if pull.origin(folder) else run.card  # what a stranger's configuration says is not yours to say
    given = {key: value for key, value in dataclasses.asdict(cfg.card).items() if value is not None}
    run.card = dataclasses.replace(own, **given)
    if card.is_edited(folder / hub_card()):
        logger.info("%s was edited by hand, and goes out as it is", folder / hub_card())
    try:
        card.write(folder, run, repo)
        found = published.collect(folder, cfg.include)
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{folder}: its records are not as a run's are ({type(error).__name__}: {error})") from error
    if cfg.dry_run:
        pushed = _as_far_as_known(found.files, repo, cfg)
    else:
        hub.check_card((folder / hub_card()).read_bytes(), repo)
        remote = hub.prepare(repo, cfg.private, cfg.overwrite)
        message = cfg.message or f"Model, card and record of the run {folder.resolve().name}"
        pushed = hub.send(hub.compare(found.files, repo, remote, cfg.overwrite), remote, message)
    pushed.left_out = found.left_out
    for line in _remarks(pushed):
        logger.info(line)
    return pushed


def _as_far_as_known(files: list[File], repo: str, cfg: PushConfig) -> Pushed:
    """What a push would do, where the Hub can be asked what it has; else what would go up."""
    from hf_llm.hub import push as hub

    remote = None
    try:
        remote = hub.look(repo) if "/" in repo else None
    except InputError as error:
        logger.info("%s: what a push would delete there is not known", error)
    if remote is None:
        return hub.Pushed(repo, files)
    hub.check(remote, repo, cfg.private, cfg.overwrite)
    return dataclasses.replace(hub.compare(files, repo, remote, cfg.overwrite), sent=[])


def _remarks(pushed: Pushed) -> Iterator[str]:
    if pushed.left_out:
        yield f"left out, for no user of the model needs them: {', '.join(pushed.left_out)}"
    if pushed.kept:
        yield (
            f"repo={pushed.repo}: {', '.join(pushed.kept)} was edited there and stays as it is; overwrite=true "
            "replaces it by the run's"
        )


def hub_card() -> str:
    """The card's name, in a run and in a repository."""
    from hf_llm.hub import CARD

    return CARD


def push_command(cfg: PushConfig) -> None:
    """`hf-llm push`: the files with their sizes, and where they are."""
    if not runs.is_main_process():
        return
    pushed = push(cfg)
    width = max(len(path) for path in (*(file.path for file in pushed.files), *pushed.deleted))
    for file in pushed.files:
        mark = "  sent" if file.path in pushed.sent else ""
        print(f"{file.path:<{width}}  {file.size:>13,} bytes{mark}")
    for path in pushed.deleted:
        print(f"{path:<{width}}  {'would be deleted' if cfg.dry_run else 'deleted'}")
    total = sum(file.size for file in pushed.files)
    print(f"{len(pushed.files)} files, {total:,} bytes")
    if cfg.dry_run:
        console.say(f"nothing was sent (--dry-run); without it they go to {pushed.repo}")
    else:
        console.say(pushed.url or f"{pushed.repo} has all of them already")


def pull(cfg: PullConfig) -> Path:
    """Make a run directory of a repository that was pushed; returns it.

    Raises:
        InputError: there is no such repository, it holds no run, or the run's name is taken.
    """
    console.set_up()
    libraries.warn_of_untested()
    from hf_llm.hub import pull as hub

    assert cfg.repo is not None
    named = dataclasses.replace(cfg, run=cfg.run or cfg.repo.rpartition("/")[2])
    folder = runs.directory(named)
    hub.unpack(cfg.repo, cfg.revision, folder)
    return folder


def pull_command(cfg: PullConfig) -> None:
    """`hf-llm pull`: where the run is."""
    if runs.is_main_process():
        console.say(f"{pull(cfg)}/")


def _check_finished(folder: Path) -> None:
    if missing := [name for name in (runs.CONFIG, runs.ENVIRONMENT, runs.METRICS) if not (folder / name).is_file()]:
        raise InputError(f"{folder} has no {missing[0]}: the run is not finished; `hf-llm train` goes on with it")


def write_card(cfg: TrainConfig, folder: Path) -> None:
    """The card of a run that has just finished; a run is not lost for want of one."""
    if not runs.is_main_process():
        return
    from hf_llm.hub import card

    try:
        card.write(folder, cfg)
    except Exception:
        logger.warning("the model card could not be written", exc_info=True)


def prepare(cfg: TrainConfig, folder: Path) -> None:
    """Where the run is to be pushed: see that it can be, before any time is spent on training it."""
    if cfg.trainer.get("push_to_hub") and cfg.preflight != "only" and runs.is_main_process():
        from hf_llm.hub import push as hub

        repo, private = _target(cfg, folder)
        hub.prepare(hub.whole_name(repo), private)


def publish(cfg: TrainConfig, folder: Path) -> None:
    """Push a finished run where `trainer.push_to_hub` says so."""
    if not cfg.trainer.get("push_to_hub") or not runs.is_main_process():
        return
    repo, private = _target(cfg, folder)
    try:
        pushed = _push(folder, cfg, PushConfig(repo=repo, private=private))
    except InputError as error:
        raise InputError(
            f"{error} (the run is whole: {folder}; `hf-llm push run={folder} repo={repo}` sends it)"
        ) from error
    if pushed.deleted:
        logger.info("deleted there, for the run has them no longer: %s", ", ".join(pushed.deleted))
    logger.info("pushed: %s", pushed.url or f"{pushed.repo} has all files already")


def _target(cfg: TrainConfig, folder: Path) -> tuple[str, bool]:
    """Repository and whether it is private, by the names of TrainingArguments; private unless it says otherwise."""
    return cfg.trainer.get("hub_model_id") or folder.resolve().name, cfg.trainer.get("hub_private_repo") is not False
