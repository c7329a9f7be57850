"""A folder goes in on one machine; the same folder stands in the cache of another, under the hash of its content.

Code travels as a git bundle of a commit without history, data as its files. Both are checked when they arrive, so
what a run sees is what was sent. A cache entry is whole or not there: it is made beside its place and renamed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from agent.git import Git

CHUNK = 1 << 24
KEPT_SECONDS = 86_400.0
REF = "refs/heads/code"


class ShippingError(RuntimeError):
    """What arrived is not what was sent; the message names it."""


@dataclass(frozen=True)
class Parcel:
    """What travels. parts: name -> a reference to bytes in the store that both machines reach."""

    kind: Literal["bundle", "files"]
    digest: str
    parts: Mapping[str, Any]


def bundle(folder: Path) -> tuple[str, bytes]:
    """(git's hash of the tree, git bundle) of all files of a folder, whatever its own `.git` is."""
    with tempfile.TemporaryDirectory(prefix="bundle-") as scratch:
        own = Path(scratch, "git")
        Git(Path(scratch))("init", "--quiet", "--bare", str(own))
        git = Git(own, folder, own)
        git("add", "--all", "--force", "--", ".")
        tree = git("write-tree")
        git("update-ref", REF, git("commit-tree", tree, "-m", "code"))
        target = Path(scratch, "bundle")
        git("bundle", "create", "--quiet", str(target), REF)
        return tree, target.read_bytes()


def unbundle(tree: str, data: bytes, target: Path) -> None:
    """The bundle's files at `target`. Raises ShippingError unless they are that tree's."""
    with tempfile.TemporaryDirectory(prefix="bundle-") as scratch:
        file, own = Path(scratch, "bundle"), Path(scratch, "git")
        file.write_bytes(data)
        Git(Path(scratch))("init", "--quiet", "--bare", str(own))
        target.mkdir(parents=True)
        git = Git(own, target, own)
        git("fetch", "--quiet", str(file), f"{REF}:{REF}")
        if (found := git("rev-parse", f"{REF}^{{tree}}")) != tree:
            raise ShippingError(f"code {tree} arrived as {found}")
        git("read-tree", "--reset", "-u", REF)
    (target / ".git").mkdir()  # the sandbox hides what it finds there


def digest(folder: Path) -> str:
    """The identity of a folder's files: names, contents and whether they can be executed."""
    total = hashlib.sha256()
    for name, path in sorted(files(folder).items()):
        total.update(f"{name}\0{_digest_of(path)}\0{os.access(path, os.X_OK)}\n".encode())
    return total.hexdigest()[:40]


def files(folder: Path) -> dict[str, Path]:
    """Relative name -> path of every regular file below."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())
    return {str(path.relative_to(folder)): path for path in found}


def unpack(parcel: Parcel, get: Callable[[Any], Any], target: Path) -> None:
    """The parcel's content at `target`, which must not exist. Raises ShippingError."""
    if parcel.kind == "bundle":
        unbundle(parcel.digest, bytes(get(parcel.parts["bundle"])), target)
    else:
        target.mkdir(parents=True)
        for name, reference in parcel.parts.items():
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(memoryview(get(reference)))
        if (found := digest(target)) != parcel.digest:
            raise ShippingError(f"data {parcel.digest} arrived as {found}")
    for path in target.rglob("*"):
        # root's sandbox is nobody when it reads
        path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
    target.chmod(0o755)


def cached(cache: Path, parcel: Parcel, get: Callable[[Any], Any]) -> Path:
    """The folder of a parcel in this machine's cache, fetched if it is not there. Raises ShippingError."""
    target = cache / parcel.kind / parcel.digest
    if target.is_dir():
        os.utime(target)
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    cache.chmod(0o700)
    with _locked(target.with_name(f"{target.name}.lock")):
        if not target.is_dir():
            unfinished = target.with_name(f"{target.name}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            try:
                unpack(parcel, get, unfinished)
                unfinished.rename(target)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
            _prune(target.parent)
    return target


def _prune(folder: Path) -> None:
    """Every candidate's code is sent once; what no run has asked for since yesterday goes."""
    for entry in folder.iterdir():
        if folder.name == "bundle" and time.time() - entry.stat().st_mtime > KEPT_SECONDS:
            shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(missing_ok=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process fetches, the others wait; a killed one's lock ends with it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _digest_of(path: Path) -> str:
    total = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            total.update(chunk)
    return total.hexdigest()
