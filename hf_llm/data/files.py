"""`data.files` or a folder -> which files make up which split, and the bytes in each, decompressed."""

from __future__ import annotations

import bz2
import contextlib
import glob
import gzip
import logging
import lzma
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import urlsplit

import pyarrow as pa
from datasets import DownloadConfig
from datasets.utils.file_utils import cached_path, is_remote_url, xopen

from hf_llm.config import DataConfig, InputError
from hf_llm.data.columns import listed, shorten
from hf_llm.data.formats import ENDINGS, FORMATS
from hf_llm.data.splits import canonical

logger = logging.getLogger(__name__)

_OPENERS: dict[str, Callable[[IO[bytes]], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": lambda raw: pa.CompressedInputStream(raw, "zstd"),  # zstandard's reader takes a cut file for a whole one
}
COMPRESSIONS = (".gz", ".zst", ".zip", ".bz2", ".xz")


def named(files: Any) -> dict[str, list[str]]:
    """`data.files` -> split (as the user calls it) -> files and URLs, globs expanded, in a stable order.

    Raises:
        InputError: it is of another shape, or a file or glob matches nothing.
    """
    if not isinstance(files, dict):
        files = {"train": files}
    result = {}
    for split, value in files.items():
        sources = [value] if isinstance(value, str) else value
        if not isinstance(sources, (list, tuple)) or not sources or not all(isinstance(s, str) and s for s in sources):
            raise InputError(f"data.files.{split}={value!r}: give a file, a glob or a URL, or a list of them")
        result[str(split)] = [file for source in sources for file in _expand(source, f"data.files.{split}")]
    if not result:
        raise InputError("data.files is empty: give data.files.train=FILE")
    return result


def _expand(source: str, key: str) -> list[str]:
    if is_remote_url(source):
        return [source]
    path = os.path.expanduser(source.removeprefix("file://"))
    if os.path.isfile(path):
        return [path]
    if os.path.isdir(path):
        raise InputError(f"{key}={source} is a folder: give data.path={source}, or a glob such as {source}/*.txt")
    found = sorted(f for f in glob.glob(path, recursive=True) if os.path.isfile(f)) if glob.has_magic(path) else []
    if found:
        return found
    if glob.has_magic(path):
        raise InputError(f"{key}={source}: the glob matches no file (from {os.getcwd()})")
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise InputError(f"{key}={source}: no such file, nor a folder {folder} (from {os.getcwd()})")
    raise InputError(
        f"{key}={source}: no such file; {folder} has {listed(os.listdir(folder), os.path.basename(path))}"
    )


def is_local(cfg: DataConfig) -> bool:
    """Whether the rows lie in files of this machine, be they there or not."""
    if not cfg.files:
        return os.path.isdir(os.path.expanduser(str(cfg.path)))
    given = cfg.files.values() if isinstance(cfg.files, dict) else [cfg.files]
    sources = [source for value in given for source in (value if isinstance(value, (list, tuple)) else [value])]
    return not any(is_remote_url(str(source)) for source in sources)


def in_folder(folder: Path, cfg: DataConfig) -> dict[str, list[str]]:
    """A folder's data files by split: the split's name is a part of the file's name, or a sub-folder's.

    Where no name says so, all of them are the train split. `cfg.splits` may name a file, without its ending, or a
    sub-folder.

    Raises:
        InputError: the folder has no data file.
    """
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and not any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)
        and path.name.lower() not in ("readme.md", "source.md", "license.md", "license.txt", "dataset_info.json")
        and (_ending(path.name) in ENDINGS or cfg.format)
    )
    if not files:
        raise InputError(
            f"data.path={folder}: no data file in the folder; it may hold {', '.join(FORMATS)} "
            f"(also {', '.join(COMPRESSIONS)}), or what save_to_disk wrote"
        )
    result: dict[str, list[str]] = {}
    unnamed = []
    for path in files:
        name = _split_name(path.relative_to(folder), set(cfg.splits.values()))
        if name is None:
            unnamed.append(str(path))
        else:
            result.setdefault(name, []).append(str(path))
    if not result:
        return {"train": unnamed}
    if unnamed:
        logger.info("%s: left out, for no split is in their names: %s", folder, listed(map(os.path.basename, unnamed)))
    return result


def _split_name(path: Path, also: set[str]) -> str | None:
    """The split that a file's name, or else the nearest folder's, has as one of its words."""
    for part in (_stem(path.name), *reversed(path.parent.parts)):
        if part in also:
            return part
        for word in re.split(r"[^A-Za-z]+", part):
            if canonical(word) in ("train", "validation", "test"):
                return canonical(word)
    return None


def format_of(file: str, cfg: DataConfig) -> str:
    """`cfg.format`, or what the file's ending says.

    Raises:
        InputError: neither is a known format.
    """
    if cfg.format:
        if cfg.format not in FORMATS:
            raise InputError(f"data.format={cfg.format}: not one of {listed(FORMATS, near=cfg.format)}")
        return cfg.format
    form = ENDINGS.get(_ending(file))
    if form is None:
        raise InputError(f"{file}: the name's ending tells no format; set data.format to one of {', '.join(FORMATS)}")
    return form


def _plain(name: str) -> str:
    """The file name without the ending of a compression, and a URL's without its query."""
    name = os.path.basename(urlsplit(name).path if is_remote_url(name) else name)
    while name.lower().endswith(COMPRESSIONS):
        name = os.path.splitext(name)[0]
    return name


def _ending(name: str) -> str:
    return os.path.splitext(_plain(name))[1].lower()


def _stem(name: str) -> str:
    return os.path.splitext(_plain(name))[0]


def contents(file: str) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of what a file holds: itself, decompressed, or every member of a zip.

    Raises:
        InputError: a URL cannot be fetched, or the file cannot be read or decompressed.
    """
    path = _fetched(file) if is_remote_url(file) else file
    with readable(file), open(path, "rb") as raw:
        for name, stream in _decompressed(file, raw):
            yield name, stream.read()


def streams(file: str) -> Iterator[tuple[str, IO[bytes]]]:
    """As `contents`, but open for reading piece by piece, a URL too: neither memory nor disk need hold the file.

    What is wrong with the file is found while it is read: do that within `readable`.
    """
    with readable(file), _opened(file) as raw:
        yield from _decompressed(file, raw)


def _opened(file: str) -> IO[bytes]:
    if not is_remote_url(file):
        return open(file, "rb")
    try:
        return cast(IO[bytes], xopen(file, "rb"))
    except Exception as error:
        raise _unfetched(file, error) from error


@contextlib.contextmanager
def readable(file: str) -> Iterator[None]:
    """Whatever keeps a file from being read, as an InputError that names it."""
    try:
        yield
    except (OSError, EOFError, zipfile.BadZipFile, lzma.LZMAError, zlib.error) as error:
        raise InputError(f"{file}: cannot be read: {shorten(str(error) or type(error).__name__, 150)}") from error


def _decompressed(name: str, raw: IO[bytes]) -> Iterator[tuple[str, IO[bytes]]]:
    ending = os.path.splitext(urlsplit(name).path if is_remote_url(name) else name)[1].lower()
    if ending == ".zip":
        with zipfile.ZipFile(raw) as archive:
            members = [m for m in archive.infolist() if not m.is_dir() and not m.filename.startswith("__MACOSX/")]
            if not members:
                raise InputError(f"{name}: the archive is empty")
            for member in members:
                inner, ending = f"{name}/{member.filename}", os.path.splitext(member.filename)[1].lower()
                if member.flag_bits & 1:
                    raise InputError(f"{inner}: is encrypted; unpack the archive first")
                if ending == ".zip":
                    raise InputError(f"{inner}: a zip in a zip; unpack the archive first")
                with archive.open(member) as stream:
                    yield from _unpacked(inner, stream, ending)
    else:
        yield from _unpacked(name, raw, ending)


def _unpacked(name: str, raw: IO[bytes], ending: str) -> Iterator[tuple[str, IO[bytes]]]:
    if ending in _OPENERS:
        with _OPENERS[ending](raw) as stream:
            yield name, stream
    else:
        yield name, raw


def _fetched(url: str) -> str:
    """The path of a URL's cached copy (fetched again when the server's ETag says that it changed)."""
    try:
        return cached_path(url, download_config=DownloadConfig(disable_tqdm=True))
    except Exception as error:
        raise _unfetched(url, error) from error


def _unfetched(url: str, error: Exception) -> InputError:
    """fsspec back-ends raise what they like."""
    cause = error.__cause__ or error
    return InputError(f"{url}: cannot be fetched: {shorten(str(cause) or type(cause).__name__, 150)}")
