"""Search-and-replace edits and a source tree go in, the files' new contents come out, or a reason why not."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path

from agent.records import Edit
from agent.task import Editable

PLAIN_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*", re.ASCII)
# control characters, and those that make code look other than it runs
HIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u061c\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


class EditError(ValueError):
    """An edit that will not be applied; the message is a reason that a searcher can learn from."""


def edited(root: Path, edits: Sequence[Edit], editable: Editable) -> dict[str, bytes]:
    """The new content of each file that the edits touch, in order; nothing is written. Raises EditError."""
    if len(edits) > editable.most_edits:
        raise EditError(f"{len(edits)} edits; at most {editable.most_edits} in a proposal")
    for edit in edits:
        _check(edit, editable)
    size = sum(len(edit.old) + len(edit.new) for edit in edits)
    if size > editable.most_edit_bytes:
        raise EditError(f"edits of {size} characters; at most {editable.most_edit_bytes} in a proposal")
    before: dict[str, str] = {}
    after: dict[str, str] = {}
    for edit in edits:
        if edit.path not in after:
            before[edit.path] = after[edit.path] = read_file(root, edit.path, editable.most_file_bytes)
        after[edit.path] = _replaced(edit, after[edit.path])
        if len(after[edit.path].encode()) > editable.most_file_bytes:
            raise EditError(f"{edit.path}: would exceed {editable.most_file_bytes} bytes")
    if edits and before == after:
        raise EditError("the edits together change nothing")
    return {path: text.encode() for path, text in after.items() if text != before[path]}


def _check(edit: Edit, editable: Editable) -> None:
    shown = ascii(edit.path)[:120]
    if not isinstance(edit.path, str) or not PLAIN_PATH.fullmatch(edit.path):
        raise EditError(
            f"path {shown}: expected a relative path of plain names, without `..` or hidden files"
        )
    if not editable.holds(edit.path):
        raise EditError(f"{shown} is not editable; editable are {', '.join(editable.files)}")
    if not isinstance(edit.old, str) or not isinstance(edit.new, str):
        raise EditError(f"{shown}: old and new must be text")
    if not edit.old:
        raise EditError(f"{shown}: old is empty; give the text to replace")
    if edit.old == edit.new:
        raise EditError(f"{shown}: old and new are the same")
    try:
        edit.new.encode()
    except UnicodeEncodeError:
        raise EditError(f"{shown}: new is not valid Unicode") from None
    if found := HIDDEN.search(edit.new):
        raise EditError(f"{shown}: new holds the control or invisible character {found.group()!a}")


def _replaced(edit: Edit, text: str) -> str:
    # overlapping occurrences are ambiguous too, and str.count misses them
    first = text.find(edit.old)
    if first < 0:
        raise EditError(
            f"{edit.path}: old does not occur in the file; quote it exactly, white space included"
        )
    if text.find(edit.old, first + 1) >= 0:
        raise EditError(f"{edit.path}: old occurs more than once; quote more lines around it")
    return text[:first] + edit.new + text[first + len(edit.old) :]


def read_file(root: Path, path: str, most_bytes: int) -> str:
    """An existing regular file below `root`, no symbolic link on the way. Raises EditError."""
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        *parents, name = path.split("/")
        for part in parents:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = below
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError as error:
        raise EditError(
            f"{path}: no such file, or a link: {error.strerror}; edits change existing files"
        ) from None
    finally:
        os.close(folder)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise EditError(f"{path}: not a regular file of its own")
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise EditError(f"{path}: larger than {most_bytes} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise EditError(f"{path}: not a text file") from None
