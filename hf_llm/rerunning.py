"""`rerun`: train a run again from what it left behind, and say what differs from then and whether the weights do."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_llm import checkpoints, console, libraries, offline, provenance, runs, training
from hf_llm.config import InputError, RerunConfig, TrainConfig

logger = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")


@dataclass
class Rerun:
    """A run beside the one it repeats."""

    folder: Path | None  # of the new run; None with dry_run
    differences: list[str]  # what is not as it was then, a line each; whether it matters the weights say
    same_weights: bool | None  # bit for bit; None where nothing was trained, or the first run's are not on record
    metrics: dict[str, Any]


def rerun(cfg: RerunConfig) -> Rerun:
    """Repeat the run that `cfg.run` names: a run directory, or a repository of the Hub that one was pushed to.

    Its configuration is read as a stranger's (`hub.capsule`): it may name no file of this machine unless
    `cfg.local_files` or `cfg.data` says so, and no address, launcher, tracker or code.

    Raises:
        InputError: there is no such run, its configuration may not be used, or its data are not those of then.
    """
    console.set_up()
    if cfg.offline:
        offline.switch_on()
    folder = _folder(cfg)
    from hf_llm.hub import capsule

    if cfg.dry_run:  # it says what it can without the data
        cfg = dataclasses.replace(cfg, local_files=True)
    settings = capsule.read(folder / runs.CONFIG, local_files=cfg.local_files, given=cfg.data, trainer=cfg.trainer)
    before = capsule.record(folder / runs.ENVIRONMENT)
    settings.run = cfg.name or f"{(cfg.run or '').rstrip('/').rpartition('/')[2]}-rerun"
    settings.runs_dir, settings.offline = cfg.runs_dir, cfg.offline
    if {"num_train_epochs", "max_steps"} & cfg.trainer.keys():
        settings.least_steps = None
    differences = _differences(before)
    for line in differences:
        logger.info("not as then: %s", line)
    if cfg.dry_run:
        return Rerun(None, differences, None, {})
    if cfg.offline:
        offline.check(settings.data, settings.tokenizer, settings.model)
    _check_data(settings, before, cfg)
    run = training.train(settings)
    weights = {path.name: checkpoints.digest(path) for path in sorted((run.folder / runs.MODEL).glob("*.safetensors"))}
    recorded = before.get("weights")
    return Rerun(run.folder, differences, recorded == weights if recorded else None, run.metrics)


def _folder(cfg: RerunConfig) -> Path:
    """Where config.yaml and environment.json of the run are."""
    from hf_llm import hub

    assert cfg.run is not None
    if not hub.is_pushed_run(cfg.run):
        folder = runs.directory(cfg)
        if not (folder / runs.CONFIG).is_file():
            raise InputError(f"run={cfg.run}: {folder} has no {runs.CONFIG}: there is no run to repeat")
        return folder
    from hf_llm.hub import pull

    fetched = pull.snapshot(cfg.run, cfg.revision)
    if not pull.has_run(fetched):
        raise InputError(f"run={cfg.run}: no run was pushed there")
    return fetched / hub.RUN_FOLDER


def _differences(before: dict[str, Any]) -> list[str]:
    """What of versions, machine and source is not as the record, which may be a stranger's, has it."""
    from hf_llm.hub.capsule import shown

    found = []
    packages = before.get("packages")
    for name, version in sorted(packages.items()) if isinstance(packages, dict) else ():
        try:
            now = importlib.metadata.version(str(name))
        except (importlib.metadata.PackageNotFoundError, ValueError):
            now = "not installed"
        if now != version:
            found.append(f"{shown(name)} {shown(version)} then, {now} now")
    libraries.load()
    here = provenance.environment(0, None)
    for key in ("hf_llm", "python", "platform", "num_processes", "git_commit"):
        if key in before and before[key] != here[key]:
            found.append(f"{key}: {shown(before[key])} then, {here[key]} now")
    hardware = before.get("hardware")
    for key, value in hardware.items() if isinstance(hardware, dict) else ():
        if value != here["hardware"].get(key):
            found.append(f"{shown(key)}: {shown(value)} then, {here['hardware'].get(key)} now")
    if str(here["git_commit"]).endswith("-dirty"):
        found.append("git_commit: files differ from it now (-dirty)")
    return found


def _check_data(settings: TrainConfig, before: dict[str, Any], cfg: RerunConfig) -> None:
    """Refuse to train on other data than then: whatever came out would not be the run again."""
    from hf_llm import data, tasks

    if settings.data.streaming:
        logger.info("the data are streamed: nobody can say beforehand whether they are those of then")
        return
    task = tasks.get(settings.task, settings.model)
    read: dict[str, Any] = {}
    rows = data.load(
        settings.data,
        task.columns,
        seed=settings.trainer.get("seed", 42),
        sample_by=task.sample_by,
        account=read,
        run_format=settings.format,
    )
    fingerprint = before.get("data_fingerprint")
    if fingerprint and data.fingerprint(rows) != fingerprint:
        why = _other_data(before, read, data.split_fingerprints(rows))
        raise InputError(f"run={cfg.run}: the data are not those of then: {why}")


def _other_data(before: dict[str, Any], read: Mapping[str, Any], fingerprints: Mapping[str, str]) -> str:
    """Which split is missing, too many or other than then, as far as the record, which may be a stranger's, says.

    Args:
        read: split of the source -> its rows read, now.
        fingerprints: those of the splits, made from train or read, now.
    """
    then = _mapping(before.get("read"))
    lines = [
        f"the {split} split of then ({_rows(then[split])}) is missing: give data.files.{split}=FILE"
        for split in SPLITS
        if split in then and split not in read
    ]
    if then:
        lines += [f"the run had no {split} split: leave it out" for split in read if split not in then]
    if not lines:
        recorded = _mapping(before.get("split_fingerprints"))
        for split in read:
            counts = _rows(then.get(split)), _rows(read[split])
            if counts[0] != counts[1] and split in then:
                lines.append(f"the {split} split has {counts[1]}, and had {counts[0]} then")
            elif split in recorded and recorded[split] != fingerprints.get(split):
                lines.append(f"the {split} split has other rows, or in another order")
    return "; ".join(lines) or "their content has another fingerprint"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _rows(account: Any) -> str:
    """What a record has of the rows that were read of a split."""
    count = _mapping(account).get("read")
    return f"{count:,} rows" if isinstance(count, int) else "some rows"


def rerun_command(cfg: RerunConfig) -> None:
    """`hf-llm rerun`: the differences, then the training, then whether the weights are the same."""
    result = rerun(cfg)
    if not result.differences:
        console.say("nothing differs from then, as far as it is on record")
    if result.folder is None:
        console.say("nothing was trained (--dry-run)")
        return
    console.show_metrics(result.metrics, title=str(result.folder))
    verdict = {
        True: "the weights are the same, bit for bit",
        False: "the weights are NOT the same",
        None: "the weights of then are not on record",
    }
    console.say(f"{result.folder}/: {verdict[result.same_weights]}")
