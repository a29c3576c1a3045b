"""Sending a run to the Hub, through huggingface_hub: what is there already is not sent again."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from hf_llm import runs
from hf_llm.config import InputError
from hf_llm.hub import CARD, PUSHED, RUN_FOLDER, capsule
from hf_llm.hub.card import is_edited
from hf_llm.hub.published import File

logger = logging.getLogger(__name__)

LARGE = 2**20  # bytes: a file of so many is sent by itself, so that a cut leaves the others sent


@dataclass
class Remote:
    """What a repository has."""

    head: str | None  # the commit
    private: bool
    files: dict[str, Any]  # path -> its entry in the Hub's listing
    pushed: Mapping[str, Any]  # path -> digests of what the last push put there
    card_is_edited: bool  # somebody else's, or changed since a push wrote it


@dataclass
class Pushed:
    """What a push did, or with `dry_run` would do."""

    repo: str
    files: list[File]  # of the repository, sent now or there before
    sent: list[str] = field(default_factory=list)  # paths of those that were not there
    deleted: list[str] = field(default_factory=list)  # of an earlier push, which this run no longer has
    kept: list[str] = field(default_factory=list)  # not the run's own: the card that was edited there
    left_out: list[str] = field(default_factory=list)  # of the run's directory
    url: str | None = None  # of the commit; None where nothing was sent


def whole_name(repo: str, ask: bool = True) -> str:
    """OWNER/NAME; without an owner, that of the token, where the Hub may be asked.

    Raises:
        InputError: there can be no such repository, or the Hub does not know who asks.
    """
    with explained(f"repo={repo}"):
        validate_repo_id(repo)
        if "/" not in repo and ask:
            repo = f"{HfApi().whoami()['name']}/{repo}"
    return repo


def check_card(content: bytes, repo: str) -> None:
    """Have the Hub look at a card's metadata, which it would else refuse once the large files are there.

    Raises:
        InputError: it refuses them.
    """
    refused: Exception | None = None
    with explained(f"repo={repo}"):
        try:
            ModelCard(content.decode(), ignore_metadata_errors=True).validate("model")
        except UnicodeDecodeError as error:
            raise InputError(f"{CARD}: not UTF-8; save it as such, then push again") from error
        except (ValueError, TypeError, yaml.YAMLError) as error:
            refused = error
    if refused:
        raise InputError(f"{CARD}: the Hub refuses its metadata ({_complaints(str(refused))})") from refused


def _complaints(said: str) -> str:
    """Of the Hub's answer, what it complains of."""
    with suppress(ValueError, TypeError, KeyError):
        said = "; ".join(str(error["message"]) for error in json.loads(said)["errors"])
    return " ".join(said.split())[:200]


def look(repo: str) -> Remote | None:
    """What the repository has; None where there is none, or none that this token may see.

    Raises:
        InputError: the Hub refuses, or cannot be reached.
    """
    api = HfApi()
    with explained(f"repo={repo}"):
        try:
            info = api.repo_info(repo)
        except RepositoryNotFoundError as error:
            if error.response.status_code == 404:
                return None
            raise
        tree = api.list_repo_tree(repo, recursive=True, revision=info.sha)
        there: dict[str, Any] = {item.path: item for item in tree if hasattr(item, "blob_id")}
        pushed = _record(api, repo, info.sha, there)
        edited = CARD in there and not _is(there[CARD], pushed.get(CARD)) and there[CARD].size > 0
        if edited:
            edited = is_edited(Path(api.hf_hub_download(repo, CARD, revision=info.sha)))
    return Remote(info.sha, bool(info.private), there, pushed, edited)


def _record(api: HfApi, repo: str, revision: str | None, there: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the last push wrote of itself; nothing where it is not there or cannot be read."""
    path = f"{RUN_FOLDER}/{PUSHED}"
    if path not in there:
        return {}
    try:
        files = capsule.record(Path(api.hf_hub_download(repo, path, revision=revision))).get("files")
    except InputError:
        return {}
    return files if isinstance(files, Mapping) else {}


def check(remote: Remote, repo: str, private: bool, overwrite: bool = False) -> None:
    """Refuse a repository that is public, or somebody's, unless the user said so.

    Raises:
        InputError: it is public though `private` is asked for, or has files and no run, without `overwrite`.
    """
    if private and not remote.private:
        raise InputError(f"repo={repo} is public: to publish there, say private=false")
    if not private and remote.private:
        logger.warning("repo=%s is private, and stays so: make it public in its settings on the Hub", repo)
    others = [path for path in remote.files if path not in (".gitattributes", CARD)]
    if others and f"{RUN_FOLDER}/{runs.CONFIG}" not in remote.files and not overwrite:
        named = ", ".join(others[:3]) + (", …" if len(others) > 3 else "")
        raise InputError(
            f"repo={repo} has files that no push put there ({named}): give another name, or say overwrite=true, "
            "which replaces those that a run has too and leaves the others"
        )


def prepare(repo: str, private: bool, overwrite: bool = False) -> Remote:
    """Make the repository where there is none, and see that it may be written to; what it has.

    Raises:
        InputError: no access, no such owner, or one that `check` refuses.
    """
    remote = look(repo)
    if remote is None:
        with explained(f"repo={repo}"):
            HfApi().create_repo(repo, private=private, exist_ok=True)
        remote = look(repo)
        if remote is None:
            raise InputError(f"repo={repo}: it was made, and is not to be seen: give the same command again")
    check(remote, repo, private, overwrite)
    return remote


def compare(files: Sequence[File], repo: str, remote: Remote, overwrite: bool = False) -> Pushed:
    """What of `files` the repository has not, and what an earlier push left there that is not among them."""
    ours = {file.path: file for file in files}
    same = _is(remote.files.get(CARD), ours[CARD].digests)
    kept = [CARD] if remote.card_is_edited and not same and not overwrite else []
    files = [file for file in files if file.path not in kept]
    missing = [file.path for file in files if not _is(remote.files.get(file.path), file.digests)]
    deleted = [
        path for path, entry in remote.files.items() if path not in ours and _is(entry, remote.pushed.get(path))
    ]
    return Pushed(repo, files, missing, deleted, kept)


def _is(entry: Any, digests: Any) -> bool:
    """Whether an entry of the Hub's listing has the content of these digests."""
    if entry is None or not isinstance(digests, Mapping):
        return False
    return digests.get("sha256") == entry.lfs.sha256 if entry.lfs else digests.get("git") == entry.blob_id


def send(pushed: Pushed, remote: Remote, message: str) -> Pushed:
    """Commit what `compare` found.

    Raises:
        InputError: the Hub refuses, or the connection is cut: says what is missing there.
    """
    if not pushed.sent and not pushed.deleted:
        return pushed
    api, repo = HfApi(), pushed.repo
    missing = [file for file in pushed.files if file.path in pushed.sent]
    additions = [CommitOperationAdd(file.path, _content(file)) for file in missing]
    unsent = [file.path for file in missing]
    with explained(f"repo={repo}", unsent):
        for file, addition in zip(missing, additions, strict=True):
            if file.size >= LARGE:
                api.preupload_lfs_files(repo, [addition], num_threads=1, free_memory=False)
                unsent.remove(file.path)
        operations: list[Any] = [*additions, *map(CommitOperationDelete, pushed.deleted)]
        commit = api.create_commit(repo, operations, commit_message=message, parent_commit=remote.head)
    pushed.url = commit.commit_url
    return pushed


def _content(file: File) -> Any:
    return file.content if isinstance(file.content, bytes) else str(file.content)


@contextmanager
def explained(what: str, missing: Sequence[str] = ()) -> Iterator[None]:
    """What the Hub, or the way to it, refuses, as one line; and what of the files is not there yet."""
    import httpx2

    try:
        yield
    except InputError:
        raise
    except (HfHubHTTPError, httpx2.HTTPError, OSError, RuntimeError, ValueError) as error:
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error  # of a large file
        rest = f"; not sent: {', '.join(missing)}; the same command again sends what is missing" if missing else ""
        raise InputError(f"{what}: {_reason(cause)}{rest}") from error


def _reason(error: BaseException) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    said = " ".join(str(getattr(error, "server_message", None) or error).split())[:200]
    if isinstance(error, HFValidationError):
        return f"no name of a repository: {said}"
    if isinstance(error, OfflineModeIsEnabled):
        return "the Hub is not to be asked (HF_HUB_OFFLINE=1)"
    if isinstance(error, LocalTokenNotFoundError) or status == 401:
        return (
            "the Hub does not know who you are: log in with `hf auth login`, or set HF_TOKEN to a token that is valid"
        )
    if status == 403:
        return f"your token may not do this ({said}): take one that may write there"
    if status == 404:
        return "there is no such repository or revision, or you may not see it"
    if status in (409, 412):
        return f"somebody else changed it meanwhile ({said})"
    if status == 429:
        return "the Hub asks for patience: too many requests; wait a while"
    if status is not None and status >= 500:
        return f"the Hub has a fault of its own (status {status})"
    if status is None and isinstance(error, ValueError):
        return f"the Hub and this machine do not understand each other ({said})"
    if status is None:
        return f"the Hub cannot be reached ({said or type(error).__name__})"
    return f"the Hub refuses (status {status}): {said}"
