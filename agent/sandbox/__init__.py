"""Untrusted commands enter; they run with nothing but what they need, and how they ended leaves.

`Bubblewrap` (sandbox=bubblewrap) gives a run: the system's and the interpreter's files, code and data
read-only, one writable folder, devices of GPUs; no network but its own loopback, no home, no environment but
the one given, no other process in sight, no privileges, a seccomp filter; limits on wall clock, memory,
processes, CPU time, open files, disk, entries and output. It works for root, whose payload becomes a user
that nothing else on the machine is, and for an ordinary user, and refuses to run otherwise.
`Unsandboxed` (sandbox=none) is the explicit choice to do without.

With `warm`, a run whose libraries are named is a fork of a process that has imported them, and that never
sees anything of a run. bubblewrap makes the sandbox as ever; the fork enters its namespaces before a line of the
run's code is read, and gives up rights, descriptors and system calls itself (preloaded.py). Its interpreter is a
sealed copy, since /proc/self/exe leads around read-only mounts.

Not covered:
- Forks of one server have the same address layout and the same hash seed. Neither leads anywhere by itself.
- Outside the process namespace a guardian waits for each fork, with the lab's rights. It reads an exit status.
- Holes of the kernel or of a GPU driver that the allowed system calls and the passed devices reach.
- Side channels: timing, caches, load, the machine's totals in /proc.
- GPU memory and GPU time of other processes: a card is shared with everything else that was given it.
- What a result says. Exit code, files and output are claims of the code that ran (see agent.claims); even a
  successful exit code may have been invented.
- Memory of the kernel itself (socket buffers, pipes, directory entries) is in no process's account. A run is
  killed when the machine as a whole is left with less than 4 % of its memory.
- Polled limits are exceeded by what fits between two looks: memory 0.1 s, disk 0.3 s. CPU time of children
  whose parent refuses to wait for them is lost from the sum; the wall clock still holds.
- A supervisor killed by SIGKILL in the millisecond in which bubblewrap starts may leave an idle process, in
  which nothing of the payload runs; the next check() removes it.
- Unlinked files that are neither open nor mapped, but in flight inside a socket, count only through the
  file system's free space, of which 256 MiB are kept.
- An ordinary user's payload shares its user with process 1 of its own sandbox. If it takes that process over
  and the supervisor then dies by SIGKILL, it may survive; as root it cannot.
- Set-user-id programs and files of the mounted folders: nothing in them is secret from the payload. Mask or
  do not mount what it should not read; /usr is visible whole.
- UNIX sockets and FIFOs inside a mounted folder can be talked to, read-only or not. Mount none.
- What a run was shown legitimately. Training pairs of one fold are validation pairs of another: code that prints
  them, and a searcher that writes what it read in the log into its next edit, could answer with them. An edit's
  size caps bound it, each run's log and edits are kept, and the test set, which no run of a search is shown, tells.
- Denial of service within the limits: it may use its memory, its disk, its processes and its time.
"""

from agent.sandbox.base import (
    RUN_DIR,
    Finished,
    Job,
    KilledBy,
    Limits,
    Mount,
    Preload,
    Sandbox,
    SandboxUnavailable,
)
from agent.sandbox.bubblewrap import Bubblewrap
from agent.sandbox.devices import gpu_devices
from agent.sandbox.disk import remove
from agent.sandbox.none import Unsandboxed
from agent.sandbox.text import clean_text

__all__ = [
    "RUN_DIR", "Bubblewrap", "Finished", "Job", "KilledBy", "Limits", "Mount", "Preload", "Sandbox",
    "SandboxUnavailable", "Unsandboxed", "clean_text", "gpu_devices", "remove",
]  # fmt: skip
