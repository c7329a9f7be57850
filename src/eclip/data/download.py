"""One whole file: what the record says of it and a path enter; the verified file is there on leaving."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from eclip.data.client import Client, FetchError, RangesRefusedError


class ChecksumError(FetchError):
    """The bytes are not the record's, twice in a row."""


@dataclass(frozen=True)
class RemoteFile:
    """One file of a record: `key` its name there, `size` in bytes, `md5` in hex, `url` its content."""

    key: str
    size: int
    md5: str
    url: str


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what a full disk, a missing permission or an odd path raises into a FetchError naming `path`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise FetchError(
            f"{path}: cannot be written: {reason}. Make room or choose another --root."
        ) from error


def write_json(path: Path, content: object) -> None:
    """Write `content` to `path`, all or nothing."""
    with disk_errors(path):
        partial = path.with_name(f"{path.name}.part")
        partial.write_text(json.dumps(content, indent=1))
        partial.replace(path)


def md5_of(path: Path) -> str:
    """Hex md5 of the file's bytes."""
    with path.open("rb") as source:
        return hashlib.file_digest(source, "md5").hexdigest()


def download(
    client: Client, file: RemoteFile, target: Path, advance: Callable[[int], object] = lambda count: None
) -> bool:
    """Have `file` at `target`, md5-verified; True if anything had to be fetched.

    Bytes gather in a partial file beside it that carries the md5 in its name, so a later call goes on with
    it and never with another version's. `advance` is told the bytes as they come (negative when they are
    given up). ChecksumError when two downloads in a row have the wrong md5.
    """
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_file() and target.stat().st_size == file.size and md5_of(target) == file.md5:
            advance(file.size)
            return False
        partial = target.with_name(f"{target.name}.{file.md5[:12]}.part")
        actual = []
        for _ in range(2):
            _fill(client, file, partial, advance)
            actual.append(md5_of(partial))
            if actual[-1] == file.md5:
                partial.replace(target)
                return True
            partial.unlink()
            advance(-file.size)
    raise ChecksumError(
        f"{file.key}: md5 expected {file.md5}, actual {', then '.join(actual)}; nothing was kept. "
        "The server or something between alters the file: try again later, or from another network."
    )


def _fill(client: Client, file: RemoteFile, partial: Path, advance: Callable[[int], object]) -> None:
    """Append to `partial` what is missing; from the start where the server cannot go on in the middle."""
    for _ in range(4):
        start = partial.stat().st_size if partial.exists() else 0
        if start > file.size:
            partial.unlink()
            start = 0
        free = shutil.disk_usage(partial.parent).free
        if free < file.size - start:
            raise FetchError(
                f"{partial.parent}: {file.key} needs {file.size - start:,} bytes, {free:,} are free"
            )
        advance(start)
        try:
            with partial.open("ab") as sink:
                for chunk in client.stream(file.url, start, file.size, whole=True):
                    sink.write(chunk)
                    advance(len(chunk))
            return
        except RangesRefusedError:
            advance(-partial.stat().st_size)
            partial.unlink()
    raise FetchError(
        f"{file.url}: broke off 4 times, and the server cannot go on in the middle. Try again later."
    )
