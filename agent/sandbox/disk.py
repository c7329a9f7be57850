"""A folder written by untrusted code enters; the bytes and entries below it leave, or the folder itself goes."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

MAX_DEPTH = 64


class Unmeasurable(Exception):
    """The tree is deeper than 64 folders, has too many entries, or hides a folder from its owner."""


def measure(folder: int, max_entries: int, depth: int = 0) -> tuple[int, int]:
    """Bytes on disk and number of entries below the folder open as `folder`. Follows no link.

    Raises Unmeasurable, which a caller that enforces a limit takes as exceeding it.
    """
    if depth > MAX_DEPTH:
        raise Unmeasurable(f"more than {MAX_DEPTH} folders deep")
    total = count = 0
    children = []
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                total += entry.stat(follow_symlinks=False).st_blocks * 512
            except FileNotFoundError:
                continue  # removed meanwhile
            count += 1
            if count > max_entries:
                raise Unmeasurable("too many entries")
            if entry.is_dir(follow_symlinks=False):
                children.append(entry.name)
    for name in children:
        child = _enter(folder, name)
        if child is None:
            continue
        try:
            below = measure(child, max_entries - count, depth + 1)
        finally:
            os.close(child)
        total, count = total + below[0], count + below[1]
    return total, count


def remove(path: Path) -> None:
    """A file, or a tree however deep or closed to its owner; nothing there is fine. Links are not followed."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    with suppress(OSError, RecursionError):
        shutil.rmtree(path)
        return
    for command in (["chmod", "-R", "u+rwx"], ["rm", "-rf"]):
        subprocess.run([*command, "--", str(path)], check=command[0] == "rm", env={"PATH": "/usr/bin:/bin"})


def _enter(parent: int, name: str) -> int | None:
    """The folder's descriptor; None when it was removed or replaced by something else meanwhile."""
    try:
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise Unmeasurable(f"folder {name!r}: {error.strerror}") from error
