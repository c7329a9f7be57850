"""A description of what a sandbox shows enters; bubblewrap's argument list leaves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from agent.sandbox.base import RUN_DIR, Limits, Mount

HOME = "/tmp/home"
_ETC_FILES = ("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "localtime")
_TOP_LINKS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
# read by os.cpu_count, by torch's cpuinfo and by NUMA-aware allocators; read-only, no secrets
_HARDWARE = "/sys/devices/system"


@dataclass(frozen=True)
class View:
    """What the inside of one sandbox consists of; `uid` is the payload's."""

    uid: int
    interpreter: Sequence[Path]
    libraries: Sequence[Path]
    devices: Mapping[str, Path]
    mounts: Sequence[Mount]
    masked: Sequence[str]
    run_dir: Path
    environment: Mapping[str, str]
    limits: Limits


def etc_files(uid: int) -> dict[str, bytes]:
    """The synthetic part of /etc: enough for getpwuid, localhost and name lookups that fail at once."""
    return {
        "passwd": f"root:x:0:0:::/usr/sbin/nologin\nsandbox:x:{uid}:{uid}::{HOME}:/bin/sh\n".encode(),
        "group": f"root:x:0:\nsandbox:x:{uid}:\n".encode(),
        "hosts": b"127.0.0.1 localhost sandbox\n::1 localhost\n",
        "nsswitch.conf": b"passwd: files\ngroup: files\nhosts: files\n",
        "resolv.conf": b"",
    }


def masked_sources(masked: Iterable[str], mounts: Sequence[Mount]) -> dict[str, bool]:
    """Path to hide -> whether it is a folder.

    Raises ValueError for a path that lies below no mount or does not exist there: nothing would be hidden.
    """
    found = {}
    for path in masked:
        below = [m for m in mounts if PurePosixPath(path).is_relative_to(m.target)]
        mount = max(below, key=lambda m: len(m.target), default=None)
        source = mount.source / PurePosixPath(path).relative_to(mount.target) if mount else None
        if source is None or not source.exists() or source.is_symlink() or ".." in path.split("/"):
            raise ValueError(
                f"masked path {path!r} is no file or folder below a mount: nothing would be hidden"
            )
        found[path] = source.is_dir()
    return found


def view_arguments(view: View, data: Mapping[str, int], empty: Mapping[str, int]) -> list[str]:
    """bwrap's options for everything visible inside, in order (later ones lie over earlier ones).

    data: /etc file name -> descriptor with its content. empty: masked file -> descriptor with nothing.
    """
    arguments = ["--ro-bind", "/usr", "/usr", *_top_links(), "--perms", "0755", "--dir", "/etc"]
    for name in _ETC_FILES:
        arguments += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    for name, descriptor in data.items():
        arguments += ["--perms", "0444", "--ro-bind-data", str(descriptor), f"/etc/{name}"]
    arguments += ["--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys", "--dev", "/dev"]
    arguments += _memory_folder("/dev/shm", view.limits.shm_bytes)
    arguments += _memory_folder("/tmp", view.limits.tmp_bytes)
    arguments += ["--perms", "1777", "--dir", HOME]
    folders = [*view.interpreter, *view.libraries, Path(_HARDWARE)]
    mounts = [*(Mount(folder, str(folder)) for folder in folders), *view.mounts]
    for mount in sorted(mounts, key=lambda m: m.target.count("/")):
        arguments += [
            *_parents(mount.target, mounts),
            "--ro-bind",
            str(mount.source.absolute()),
            mount.target,
        ]
    arguments += [*_parents(RUN_DIR, mounts), "--bind", str(view.run_dir), RUN_DIR]
    for path, is_folder in masked_sources(view.masked, view.mounts).items():
        if is_folder:
            arguments += ["--perms", "0555", "--tmpfs", path, "--remount-ro", path]
        else:
            arguments += ["--perms", "0444", "--ro-bind-data", str(empty[path]), path]
    for target, node in view.devices.items():
        arguments += [*_parents(target, ()), "--dev-bind", str(node), target]
    arguments += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", RUN_DIR, "--clearenv"]
    for name, value in view.environment.items():
        arguments += ["--setenv", name, value]
    return arguments


def system_folders() -> list[Path]:
    """What every sandbox shows of the system, whole."""
    top = (Path("/", name) for name in _TOP_LINKS)
    return [Path("/usr"), *(path for path in top if path.is_dir() and not path.is_symlink())]


def _top_links() -> list[str]:
    """/bin, /lib and their like as the host has them: links into /usr, or folders of their own."""
    arguments = []
    for name in _TOP_LINKS:
        path = Path("/", name)
        if path.is_symlink():
            arguments += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            arguments += ["--ro-bind", str(path), str(path)]
    return arguments


def _memory_folder(path: str, size: int) -> list[str]:
    return ["--perms", "1777", "--size", str(size), "--tmpfs", path]


def _parents(target: str, mounts: Sequence[Mount]) -> list[str]:
    """Create the folders above `target`: left to itself, bubblewrap makes them 0700 and its own.

    Not below another mount, which is read-only: there the mount point must exist.
    """
    arguments = []
    for parent in reversed(PurePosixPath(target).parents[:-1]):
        if not any(parent.is_relative_to(mount.target) for mount in mounts):
            arguments += ["--perms", "0755", "--dir", str(parent)]
    return arguments
