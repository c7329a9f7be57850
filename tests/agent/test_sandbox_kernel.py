"""System calls that a sandboxed run must not have, called for real; and the filter's program, interpreted."""

from __future__ import annotations

import errno
import platform
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from agent.sandbox.seccomp import NUMBERS, REFUSALS, filter_program
from tests.contract.sandbox import SANDBOXED, Ended, open_lab

MACHINE = platform.machine()
COLUMN = {"x86_64": 0, "aarch64": 1}.get(MACHINE, 0)

# name -> arguments that would succeed, or fail otherwise, without the sandbox
CALLS: dict[str, tuple[int, ...]] = {
    "ptrace": (0,),
    "process_vm_readv": (1,),
    "process_vm_writev": (1,),
    "kcmp": (1, 1),
    "pidfd_getfd": (0, 0, 0),
    "userfaultfd": (1,),
    "bpf": (0, 0, 0),
    "perf_event_open": (0, 0, -1, -1, 0),
    "keyctl": (0, -3, 1),
    "add_key": (0, 0, 0, 0, -3),
    "request_key": (0, 0, 0, 0),
    "io_uring_setup": (1, 0),
    "io_uring_enter": (0, 0, 0, 0, 0),
    "mount": (0, 0, 0, 0, 0),
    "umount2": (0, 2),
    "pivot_root": (0, 0),
    "chroot": (0,),
    "open_tree": (-100, 0, 1),
    "fsopen": (0, 0),
    "mount_setattr": (-100, 0, 0, 0, 0),
    "setns": (0, 0),
    "unshare": (0x10000000,),
    "open_by_handle_at": (-100, 0, 0),
    "fanotify_init": (0, 0),
    "kexec_load": (0, 0, 0, 0),
    "init_module": (0, 0, 0),
    "finit_module": (0, 0, 0),
    "reboot": (0, 0, 0, 0),
    "swapon": (0, 0),
    "acct": (0,),
    "syslog": (3, 0, 0),
    "settimeofday": (0, 0),
    "clock_settime": (0, 0),
    "personality": (0x0040000,),
    "memfd_create": (0, 0),
    "memfd_secret": (0,),
    "shmget": (0, 4096, 0o1600),
    "msgget": (0, 0o1600),
    "semget": (0, 1, 0o1600),
    "mq_open": (0, 0, 0, 0),
    "clone3": (0, 0),
    "openat2": (-100, 0, 0, 0),
}
NOT_IMPLEMENTED = {"clone3", "openat2", "io_uring_setup", "memfd_create", "memfd_secret"}


@pytest.fixture(scope="module", params=SANDBOXED)
def ended(request: pytest.FixtureRequest) -> Iterator[Ended]:
    """One run that makes every call of this file and says what each returned."""
    calls = {name: (NUMBERS[name][COLUMN], *arguments) for name, arguments in CALLS.items()}
    clone = NUMBERS["clone"][COLUMN]
    for lab in open_lab(request.param):
        yield lab.attack(f"""
            answers = {{name: syscall(*call) for name, call in {calls!r}.items()}}
            NEWUSER, NEWNS, NEWPID, NEWNET, SIGCHLD = 0x10000000, 0x20000, 0x20000000, 0x40000000, 17
            for name, flag in dict(user=NEWUSER, mount=NEWNS, pid=NEWPID, net=NEWNET).items():
                answers["clone_" + name] = syscall({clone}, flag | SIGCHLD, 0, 0, 0, 0)
            import fcntl, pty
            master, slave = pty.openpty()
            answers["TIOCSTI"] = attempt(fcntl.ioctl, slave, 0x5412, b"x")
            answers["TIOCLINUX"] = attempt(fcntl.ioctl, slave, 0x541C, b"\\x03")
            # the kernel reads an ioctl's number from 32 bits: more must not get past the filter
            answers["TIOCSTI high"] = syscall({NUMBERS["ioctl"][COLUMN]}, slave, 0x1_0000_5412, id(b"x"))
            answers["unknown"] = syscall(470, 0, 0, 0)
            answers["window size"] = attempt(fcntl.ioctl, slave, 0x5413, b"x" * 8)
            answers["plain fork"] = "done" if os.waitpid(os.fork() or os._exit(0), 0)[1] == 0 else "failed"
            tell(**answers)
        """)


@pytest.mark.parametrize("call", CALLS)
def test_refused(ended: Ended, call: str) -> None:
    assert ended.said[call] == ("ENOSYS" if call in NOT_IMPLEMENTED else "EPERM")


@pytest.mark.parametrize("kind", ["user", "mount", "pid", "net"])
def test_no_new_namespace(ended: Ended, kind: str) -> None:
    assert ended.said[f"clone_{kind}"] == "EPERM"


def test_no_keystrokes_into_a_terminal(ended: Ended) -> None:
    said = ended.said
    assert (said["TIOCSTI"], said["TIOCLINUX"], said["TIOCSTI high"]) == ("EPERM", "EPERM", "EPERM")


def test_calls_of_the_future_do_not_exist_yet(ended: Ended) -> None:
    assert ended.said["unknown"] == "ENOSYS"


def test_what_programs_need_is_allowed(ended: Ended) -> None:
    assert (ended.said["window size"], ended.said["plain fork"]) == ("done", "done")


@pytest.mark.skipif(MACHINE != "x86_64", reason="32-bit calls beside 64-bit ones are an x86 matter")
@pytest.mark.parametrize("kind", SANDBOXED)
def test_no_way_round_through_32_bit_calls(kind: str) -> None:
    for lab in open_lab(kind):
        ended = lab.attack("""
            import mmap
            # eax = 26, the 32-bit ptrace; ebx = 0; int 0x80; ret
            code = b"\\xb8\\x1a\\x00\\x00\\x00\\x31\\xdb\\xcd\\x80\\xc3"
            page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
            page.write(code)
            call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
            tell(x32=syscall(0x40000000 + 521, 0))
            tell(survived=call())
        """)
        assert ended.said == {"x32": "ENOSYS"}
        assert ended.finished.returncode == 128 + 31  # SIGSYS


def interpret(program: bytes, machine: int, number: int, arguments: tuple[int, ...]) -> int:
    """What the kernel would answer: the BPF machine in the few instructions that the filter uses."""
    call = struct.pack("<IIQ6Q", number, machine, 0, *arguments, *[0] * (6 - len(arguments)))
    position, accumulator = 0, 0
    while True:
        code, if_true, if_false, value = struct.unpack_from("<HBBI", program, 8 * position)
        position += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", call, value)
        elif code == 0x06:
            return value
        else:
            test = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: accumulator & value}[code]
            position += if_true if test else if_false


ALLOW, KILL = 0x7FFF0000, 0x80000000


@pytest.mark.parametrize(
    ("machine", "architecture", "column"), [("x86_64", 0xC000003E, 0), ("aarch64", 0xC00000B7, 1)]
)
class TestProgram:
    """On both machines, whichever this is."""

    def answer(self, machine: str, architecture: int, column: int, call: str, *arguments: int) -> int:
        number = NUMBERS[call][column]
        assert number is not None
        return interpret(filter_program(machine), architecture, number, arguments)

    def test_every_refusal_is_reached(self, machine: str, architecture: int, column: int) -> None:
        for refusal in REFUSALS:
            if NUMBERS[refusal.call][column] is not None and not refusal.when:
                answer = self.answer(machine, architecture, column, refusal.call)
                assert answer == 0x50000 | refusal.error, refusal.call

    @pytest.mark.parametrize(
        ("call", "arguments", "error"),
        [
            ("socket", (1, 1, 0), 0),
            ("socket", (2, 1, 0), 0),
            ("socket", (10, 2, 0), 0),
            ("socket", (16, 3, 0), 0),
            ("socket", (16, 3, 9), errno.EPROTONOSUPPORT),
            ("socket", (40, 1, 0), errno.EAFNOSUPPORT),
            ("clone", (0x01200011,), 0),
            ("clone", (0x10000011,), errno.EPERM),
            ("ioctl", (0, 0x5413), 0),
            ("ioctl", (0, 0x5412), errno.EPERM),
            ("fchmod", (3, 0o755), 0),
            ("fchmod", (3, 0o4755), errno.EPERM),
            ("openat", (-100 % 2**64, 0, 0, 0o4755), 0),  # nothing is created: the mode is not looked at
            ("openat", (-100 % 2**64, 0, 0o101, 0o644), 0),
            ("openat", (-100 % 2**64, 0, 0o101, 0o4755), errno.EPERM),
        ],
    )
    def test_arguments(
        self, machine: str, architecture: int, column: int, call: str, arguments: tuple[int, ...], error: int
    ) -> None:
        answer = self.answer(machine, architecture, column, call, *arguments)
        assert answer == (0x50000 | error if error else ALLOW)

    def test_other_machines_calls_kill(self, machine: str, architecture: int, column: int) -> None:
        i386 = 0x40000003
        assert interpret(filter_program(machine), i386, 20, ()) == KILL

    def test_reading_and_writing_are_allowed(self, machine: str, architecture: int, column: int) -> None:
        for number in {0: (0, 1, 9, 202, 231), 1: (63, 64, 222, 98, 94)}[column]:
            assert interpret(filter_program(machine), architecture, number, ()) == ALLOW


def test_unknown_machine_has_no_filter() -> None:
    with pytest.raises(ValueError, match="no seccomp filter for machine 'riscv64'"):
        filter_program("riscv64")


def test_numbers_agree_with_the_systems_headers() -> None:
    """The table was typed; where the kernel's headers are installed, compare."""
    from pathlib import Path

    header = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
    if not header.exists():
        pytest.skip("no kernel headers here")
    listed: dict[str, Any] = {}
    for line in header.read_text().splitlines():
        if line.startswith("#define __NR_"):
            _, name, number = line.split()
            listed[name.removeprefix("__NR_")] = int(number)
    for name, (number, _) in NUMBERS.items():
        if name in listed:
            assert listed[name] == number, name
