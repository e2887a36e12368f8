"""Where files of events lie: a folder, or object storage behind fsspec."""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from glob import has_magic, iglob
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

import orjson

# by the beginning of an address: the package that fsspec needs, and the extra of ours that brings it
_DRIVERS = {
    "s3": ("s3fs", "s3"),
    "s3a": ("s3fs", "s3"),
    "gs": ("gcsfs", "gcs"),
    "gcs": ("gcsfs", "gcs"),
    "az": ("adlfs", "azure"),
    "abfs": ("adlfs", "azure"),
    "abfss": ("adlfs", "azure"),
}
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
# s3fs would fetch, and hold, 50 MB at a time
_BLOCK = 4 << 20
# what a folder holds beside its files: .crc, .part, _SUCCESS, _temporary
_NOT_DATA = (".", "_")


class StorageError(ValueError):
    """Files that can't be listed or read: a wrong address, missing rights, a driver that isn't installed."""


class Unreachable(OSError):
    """Storage that failed while a file was being read; nothing is wrong with the file for all we know."""


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file as it was listed.

    ``name`` is its path or address; ``size`` is in bytes. ``stamp`` is another one after every change: the
    etag, else size and time of change. ``content`` names what is in it where that is known without reading
    (remote files), empty where it is not.
    """

    name: str
    size: int
    stamp: str
    content: str = ""
    filesystem: Any = field(default=None, repr=False, compare=False)

    def open(self) -> BinaryIO:
        """Return the file as a stream that can be sought in; a remote one is fetched piece by piece.

        Raises:
            FileNotFoundError: it is gone.
            Unreachable: it can't be opened.
        """
        if self.filesystem is None:
            return _opened(lambda: Path(self.name).open("rb"), self.name)
        options = {"block_size": _BLOCK, "cache_type": "readahead"}
        return _opened(lambda: self.filesystem.open(self.name, "rb", **options), self.name)


class Watched(io.RawIOBase):
    """A stream whose own failures are told from those of what is read in it.

    A Parquet reader says the same of a broken file and of a broken connection: ``failure`` is set for the
    latter alone.
    """

    def __init__(self, stream: BinaryIO, name: str) -> None:
        super().__init__()
        self._stream = stream
        self._name = name
        self.failure: Unreachable | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._stream.seekable()

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        try:
            piece = self._stream.read(len(view))
        except Exception as error:
            # each driver has exceptions of its own, many of them no OSError
            self.failure = Unreachable(f"{self._name} can't be read: {_said(error)}")
            raise self.failure from error
        view[: len(piece)] = piece
        return len(piece)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def check(self) -> None:
        """Raise the storage's failure, if there was one."""
        if self.failure is not None:
            raise self.failure


def read_options(text: str, variable: str) -> dict[str, Any]:
    """Return fsspec's options from the JSON text in an environment variable.

    Raises:
        StorageError: it isn't a JSON object; the message names the variable and repeats nothing of it.
    """
    try:
        options = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        place = f"at character {error.pos + 1}"
        raise StorageError(f"the variable {variable} is not JSON {place}; it holds options {_EXAMPLE}") from None
    if not isinstance(options, dict):
        raise StorageError(f"the variable {variable} is not a JSON object of options {_EXAMPLE}")
    return options


_EXAMPLE = 'like {"key": "...", "secret": "..."}'


def list_files(pattern: str, options: Mapping[str, Any] | None = None) -> list[InputFile]:
    """Return the files that a path, an address or wildcards (``*``, ``?``, ``[]``, ``**``) name, by name.

    A folder, or an address that ends with ``/``, stands for all files below it whose names and folders don't
    begin with ``.`` or ``_``. ``options`` are fsspec's for the address. Each listing is asked for once.

    Raises:
        StorageError: an unknown kind of address, a driver that isn't installed, storage that can't be listed.
    """
    address = _ADDRESS.match(pattern)
    if address is None or address[1].lower() == "file":
        found = _local(pattern[address.end() :] if address else pattern)
    else:
        found = _remote(address[1].lower(), pattern, options or {})
    return sorted(found, key=lambda file: file.name)


def _local(pattern: str) -> Iterator[InputFile]:
    folder = Path(pattern)
    whole = not has_magic(pattern) and folder.is_dir()
    for name in iglob(str(folder / "**" / "*") if whole else pattern, recursive=True):
        if whole and _beside_data(os.path.relpath(name, folder)):
            continue
        try:
            found = os.stat(name)
        except OSError:
            # gone since it was listed
            continue
        if stat.S_ISREG(found.st_mode):
            yield InputFile(name, found.st_size, f"{found.st_size}-{found.st_mtime_ns}-{found.st_ino}")


def _remote(scheme: str, pattern: str, options: Mapping[str, Any]) -> Iterator[InputFile]:
    filesystem = _filesystem(scheme, options)
    try:
        found = _listed(filesystem, pattern)
    except FileNotFoundError:
        return
    except Exception as error:
        raise StorageError(f"{pattern} can't be listed: {_said(error)}") from error
    for path, entry in found.items():
        if entry.get("type") == "file":
            yield _remote_file(filesystem, f"{scheme}://{path.lstrip('/')}", entry)


def _listed(filesystem: Any, pattern: str) -> dict[str, dict[str, Any]]:
    if has_magic(pattern):
        return dict(filesystem.glob(pattern, detail=True))
    root = filesystem._strip_protocol(pattern)
    if not pattern.endswith("/"):
        entry = filesystem.info(pattern)
        if entry.get("type") == "file":
            return {root: entry}
    below = filesystem.find(pattern, detail=True)
    return {path: entry for path, entry in below.items() if not _beside_data(path.removeprefix(root))}


def _beside_data(path: str) -> bool:
    return any(part.startswith(_NOT_DATA) for part in path.split("/"))


def _filesystem(scheme: str, options: Mapping[str, Any]) -> Any:
    import fsspec

    if scheme not in _DRIVERS:
        raise StorageError(f"{scheme}:// is not supported: allowed are a path, {', '.join(f'{s}://' for s in _SHOWN)}")
    package, extra = _DRIVERS[scheme]
    try:
        driver = fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        raise StorageError(
            f"{scheme}:// needs the package {package}: pip install 'heap-integration[{extra}]'"
        ) from error
    try:
        # a listing that is kept would hide what arrives
        return driver(**{"use_listings_cache": False, **options})
    except Exception as error:
        # its message may repeat an option's value
        raise StorageError(f"the options for {scheme}:// can't be used: {type(error).__name__}") from None


_SHOWN = ("s3", "gs", "az")


def _remote_file(filesystem: Any, name: str, entry: Mapping[str, Any]) -> InputFile:
    size = int(entry.get("size") or 0)
    tag = str(entry.get("ETag") or entry.get("etag") or "").strip('"')
    changed = next((entry[key] for key in ("LastModified", "last_modified", "updated", "mtime") if entry.get(key)), "")
    stamp = f"{size}-{tag or changed}"
    # the name is a part of it: etags are unique for one name, not for all
    content = blake2b(f"{stamp}@{name}".encode(), digest_size=16).hexdigest()
    return InputFile(name, size, stamp, content, filesystem)


def _opened(opener: Any, name: str) -> BinaryIO:
    try:
        stream: BinaryIO = opener()
    except FileNotFoundError:
        raise
    except Exception as error:
        raise Unreachable(f"{name} can't be opened: {_said(error)}") from error
    return stream


def _said(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
