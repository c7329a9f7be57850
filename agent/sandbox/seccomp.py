"""Enters: a machine name. Leaves: the BPF program that refuses the system calls a training run never needs.

A list of refusals, not of permissions: torch, CUDA and their threads use most of the rest, and a refusal is
added here with the attack it stops. Calls younger than the table answer "not implemented", which every
C library treats as an old kernel. Source of the numbers: the kernel's unistd headers.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence
from dataclasses import dataclass

# name -> (x86_64, aarch64); None where the machine lacks the call
NUMBERS: dict[str, tuple[int | None, int | None]] = {
    # other processes' memory and descriptors
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "userfaultfd": (323, 282),
    # kernel surfaces with a history of holes
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    # mounts and namespaces
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "setns": (308, 268),
    "unshare": (272, 97),
    "clone": (56, 220),
    "clone3": (435, 435),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    # the machine
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "syslog": (103, 116),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "vhangup": (153, 58),
    "lookup_dcookie": (212, 18),
    "nfsservctl": (180, 42),
    "personality": (135, 92),
    "modify_ldt": (154, None),
    "iopl": (172, None),
    "ioperm": (173, None),
    # memory that no process shows as its own
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "semget": (64, 190),
    "mq_open": (240, 180),
    # refused by argument
    "socket": (41, 198),
    "ioctl": (16, 29),
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "creat": (85, None),
    "open": (2, None),
    "openat": (257, 56),
    "openat2": (437, 437),
}
FIRST_UNKNOWN = 450
_X32_BIT = 0x40000000
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}

AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16
_NEW_NAMESPACE = 0x7E020000  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_SET_ID_BITS = 0o6000
_MAY_CREATE = 0o20000100  # O_TMPFILE's own bit, O_CREAT

# struct sock_filter's codes, linux/bpf_common.h
_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06
_IF_EQUAL, _IF_AT_LEAST, _IF_ANY_BIT = 0x15, 0x35, 0x45
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16

Instruction = tuple[int, int, int, int]


@dataclass(frozen=True)
class When:
    """True of a call whose argument (its low 32 bits, as the kernel reads these) meets all that is given."""

    argument: int
    any_bit: int = 0
    equals: int | None = None
    none_of: tuple[int, ...] = ()


@dataclass(frozen=True)
class Refusal:
    """Answer `error` to `call` when every condition holds."""

    call: str
    error: int = errno.EPERM
    when: tuple[When, ...] = ()


_CONDITIONAL = (
    Refusal("clone", when=(When(0, any_bit=_NEW_NAMESPACE),)),
    Refusal("socket", errno.EAFNOSUPPORT, (When(0, none_of=(AF_UNIX, AF_INET, AF_INET6, AF_NETLINK)),)),
    # NETLINK_ROUTE alone: getifaddrs, and with it gloo and NCCL, needs it
    Refusal("socket", errno.EPROTONOSUPPORT, (When(0, equals=AF_NETLINK), When(2, none_of=(0,)))),
    Refusal("ioctl", when=(When(1, equals=_TIOCSTI),)),
    Refusal("ioctl", when=(When(1, equals=_TIOCLINUX),)),
    # no set-user-id file may be left behind for others to find
    Refusal("chmod", when=(When(1, any_bit=_SET_ID_BITS),)),
    Refusal("fchmod", when=(When(1, any_bit=_SET_ID_BITS),)),
    Refusal("fchmodat", when=(When(2, any_bit=_SET_ID_BITS),)),
    Refusal("mknod", when=(When(1, any_bit=_SET_ID_BITS),)),
    Refusal("mknodat", when=(When(2, any_bit=_SET_ID_BITS),)),
    Refusal("creat", when=(When(1, any_bit=_SET_ID_BITS),)),
    Refusal("open", when=(When(1, any_bit=_MAY_CREATE), When(2, any_bit=_SET_ID_BITS))),
    Refusal("openat", when=(When(2, any_bit=_MAY_CREATE), When(3, any_bit=_SET_ID_BITS))),
)
# refused as an old kernel would: the caller then takes the older call, which is filtered by argument
_NOT_IMPLEMENTED = ("clone3", "openat2", "io_uring_setup", "memfd_create", "memfd_secret")
_BY_ARGUMENT = {refusal.call for refusal in _CONDITIONAL}
REFUSALS = (
    *(
        Refusal(call, errno.ENOSYS if call in _NOT_IMPLEMENTED else errno.EPERM)
        for call in NUMBERS
        if call not in _BY_ARGUMENT
    ),
    *_CONDITIONAL,
)


def filter_program(machine: str, refusals: Sequence[Refusal] = REFUSALS) -> bytes:
    """The filter as an array of `struct sock_filter`, for bwrap's --seccomp.

    machine: as `platform.machine()` gives it; any but x86_64 and aarch64 raises ValueError.
    """
    if machine not in _MACHINES:
        raise ValueError(f"no seccomp filter for machine {machine!r}: only {' and '.join(_MACHINES)}")
    column, architecture = _MACHINES[machine]
    program: list[Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_IF_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
    if machine == "x86_64":
        program += [(_IF_AT_LEAST, 0, 1, _X32_BIT), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]
    program += [(_IF_AT_LEAST, 0, 1, FIRST_UNKNOWN), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]
    for refusal in refusals:
        number = NUMBERS[refusal.call][column]
        if number is not None:
            block = _block(refusal)
            program += [(_IF_EQUAL, 0, len(block), number), *block]
    program.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in program)


def _block(refusal: Refusal) -> list[Instruction]:
    """What runs once the call's number has matched; built backwards, since jumps count forward."""
    tail: list[Instruction] = [(_RETURN, 0, 0, _ERRNO | refusal.error)]
    if not refusal.when:
        return tail
    restore: Instruction = (_LOAD, 0, 0, _NUMBER_AT)
    for when in reversed(refusal.when):
        tests: list[Instruction] = []
        for value in reversed(when.none_of):
            tests.insert(0, (_IF_EQUAL, len(tests) + len(tail), 0, value))
        if when.equals is not None:
            tests.insert(0, (_IF_EQUAL, 0, len(tests) + len(tail), when.equals))
        if when.any_bit:
            tests.insert(0, (_IF_ANY_BIT, 0, len(tests) + len(tail), when.any_bit))
        tail = [(_LOAD, 0, 0, _ARGUMENTS_AT + 8 * when.argument), *tests, *tail]
    return [*tail, restore]
