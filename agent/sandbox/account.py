"""The caller's rights enter; the account that the untrusted command runs under, and what it owns, leave."""

from __future__ import annotations

import itertools
import os
import stat
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from agent.sandbox.base import Mount

_uids = itertools.count()


def payload_uid() -> int:
    """The user that the payload is: the caller, or for root an account that nothing else on the machine has.

    One per run, so that the kernel's count of a user's processes is a count of this run's.
    """
    if os.geteuid() != 0:
        return os.geteuid()
    uid = 2**30 + (os.getpid() % 2**22) * 2**7 + next(_uids) % 2**7
    lines = Path("/proc/self/uid_map").read_text().splitlines()
    ranges = [tuple(map(int, line.split())) for line in lines]
    mapped = any(first <= uid < first + count for first, _, count in ranges)
    return uid if mapped else 65534


def drop_command(uid: int) -> list[str]:
    """Root's way from root to nobody, inside; an ordinary user has nothing to drop."""
    if os.geteuid() != 0:
        return []
    return [
        "setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--no-new-privs",
        "--bounding-set=-all", "--inh-caps=-all", "--",
    ]  # fmt: skip


def require_open(mounts: Sequence[Mount], run_dir: Path, uid: int) -> None:
    """Raise ValueError for a folder that is missing, or that root's payload, being nobody, could not read."""
    if run_dir.is_symlink() or not run_dir.is_dir():
        raise ValueError(f"run directory {run_dir} is not a folder; create it, new and empty, first")
    for mount in mounts:
        if not mount.source.exists():
            raise ValueError(f"mount source {mount.source} (for {mount.target}) does not exist")
        needed = 0o5 if mount.source.is_dir() else 0o4
        status = mount.source.stat()
        if status.st_uid != uid and os.geteuid() == 0 and status.st_mode & needed != needed:
            raise ValueError(
                f"mount source {mount.source} is closed to others (mode {status.st_mode & 0o777:o}), and the "
                f"sandbox drops root's rights: chmod -R o+rX {mount.source}"
            )


@contextmanager
def owned_by(run_dir: Path, uid: int) -> Iterator[None]:
    """Lend the run directory to the payload's user; then take back all that is in it, links not followed.

    Taking back also clears set-user-id bits. chown(1) copes with trees of any depth. The folder itself is as open as
    it was: an ordinary user's payload may have closed it to its owner.
    """
    before = run_dir.stat()
    lent = before.st_uid != uid
    if lent:
        os.chown(run_dir, uid, uid)
    try:
        yield
    finally:
        run_dir.chmod(stat.S_IMODE(before.st_mode))
        if lent:
            owner = f"{before.st_uid}:{before.st_gid}"
            command = ["chown", "-R", "-h", "-P", owner, "--", str(run_dir)]
            subprocess.run(command, check=True, env={"PATH": "/usr/bin:/bin"})
