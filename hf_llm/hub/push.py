"""Sending a run to the Hub, through huggingface_hub: what is there already is not sent again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled

from hf_llm.config import InputError
from hf_llm.hub.published import CHUNK, File

LARGE = 2**20  # bytes: a file of so many is sent by itself, so that a cut leaves the others sent
# Of an earlier push, where this one has no such file: weights in more pieces, a picture of a split that is no more.
STALE = (".safetensors", ".safetensors.index.json", ".png")


@dataclass
class Pushed:
    """What a push did, or with `dry_run` would do."""

    repo: str
    files: list[File]  # of the repository, sent now or there before
    sent: list[str]  # paths of those that were not there
    url: str | None = None  # of the commit; None where nothing was sent


def prepare(repo: str, private: bool) -> str:
    """Make the repository where there is none, and see that it may be written to; its whole id, OWNER/NAME.

    Raises:
        InputError: no access, no such owner, or it is public though `private` is asked for.
    """
    api = HfApi()
    with explained(f"repo={repo}"):
        if "/" not in repo:
            repo = f"{api.whoami()['name']}/{repo}"
        repo = api.create_repo(repo, private=private, exist_ok=True).repo_id
        if private and not api.repo_info(repo).private:
            raise InputError(f"repo={repo} is public: to publish there, say private=false")
    return repo


def send(files: Sequence[File], repo: str, message: str) -> Pushed:
    """Commit `files` to a repository that there is (`prepare`), and take away what an earlier push left over.

    Raises:
        InputError: the Hub refuses, or the connection is cut: says what is missing there.
    """
    api = HfApi()
    with explained(f"repo={repo}"):
        there = {item.path: item for item in api.list_repo_tree(repo, recursive=True) if hasattr(item, "blob_id")}
        head = api.repo_info(repo).sha
    missing = [file for file in files if not _is_there(file, there.get(file.path))]
    ours = {file.path for file in files}
    stale = [path for path in there if path not in ours and path.endswith(STALE)]
    if not missing and not stale:
        return Pushed(repo, list(files), [])
    additions = [CommitOperationAdd(file.path, _content(file)) for file in missing]
    unsent = [file.path for file in missing]
    with explained(f"repo={repo}", unsent):
        for file, addition in zip(missing, additions, strict=True):
            if file.size >= LARGE:
                api.preupload_lfs_files(repo, [addition], num_threads=1, free_memory=False)
                unsent.remove(file.path)
        operations: list[Any] = [*additions, *map(CommitOperationDelete, stale)]
        commit = api.create_commit(repo, operations, commit_message=message, parent_commit=head)
    return Pushed(repo, list(files), [file.path for file in missing], commit.commit_url)


def _content(file: File) -> Any:
    return file.content if isinstance(file.content, bytes) else str(file.content)


def _is_there(file: File, remote: Any) -> bool:
    """Whether the repository has the file with this content: by SHA-256, or by git's own hash of a small file."""
    if remote is None or remote.size != file.size:
        return False
    digest = hashlib.sha256() if remote.lfs else hashlib.sha1(b"blob %d\0" % file.size)
    if isinstance(file.content, bytes):
        digest.update(file.content)
    else:
        with file.content.open("rb") as stream:
            while piece := stream.read(CHUNK):
                digest.update(piece)
    return digest.hexdigest() == (remote.lfs.sha256 if remote.lfs else remote.blob_id)


@contextmanager
def explained(what: str, missing: Sequence[str] = ()) -> Iterator[None]:
    """What the Hub, or the way to it, refuses, as one line; and what of the files is not there yet."""
    import httpx2

    try:
        yield
    except InputError:
        raise
    except (HFValidationError, HfHubHTTPError, httpx2.HTTPError, OSError, RuntimeError) as error:
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
    if status is None:
        return f"the Hub cannot be reached ({said or type(error).__name__})"
    return f"the Hub refuses (status {status}): {said}"
