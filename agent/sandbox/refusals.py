"""What bubblewrap printed when it could not start enters; the cause and the fix leave."""

from __future__ import annotations

from agent.sandbox.base import SandboxUnavailable

_DOCKER = (
    "in a container, start it with --security-opt seccomp=unconfined --security-opt systempaths=unconfined"
)
_KNOWN = (
    (
        "No permissions to create new namespace",
        "user namespaces are forbidden, by a container's seccomp profile or by the kernel's settings",
        f"sysctl -w kernel.unprivileged_userns_clone=1; {_DOCKER}",
    ),
    (
        "namespaces exceeded",
        "the kernel's limit on namespaces is reached or 0",
        "sysctl -w user.max_user_namespaces=15000 (and its max_pid_, max_net_, max_mnt_ siblings)",
    ),
    (
        "Creating new namespace failed",
        "this account may not create namespaces; root in a container lacks CAP_SYS_ADMIN there",
        f"{_DOCKER} --cap-add SYS_ADMIN, or run as an ordinary user",
    ),
    (
        "Can't mount proc",
        "/proc is partly covered (by a container's masks; by NVIDIA's container runtime, which covers "
        "/proc/driver/nvidia), so an ordinary user can mount no new one",
        f"{_DOCKER}; where it is NVIDIA's, run as root with --cap-add SYS_ADMIN",
    ),
    (
        "setting up uid map",
        "AppArmor keeps unprivileged programs from using user namespaces",
        "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile for /usr/bin/bwrap "
        "with the rule `userns,`",
    ),
    (
        "Unknown option",
        "this bubblewrap is older than 0.8",
        "install bubblewrap 0.8 or newer (Debian 12, Ubuntu 24.04 and later have it)",
    ),
    (
        "Can't find source path",
        "a file or folder that the sandbox should show is missing, or this user cannot read it",
        "check the path in the message, and the permissions of the folders above it",
    ),
    (
        "execvp setpriv",
        "setpriv, which drops root's rights inside, is not installed",
        "apt-get install util-linux (2.33 or newer)",
    ),
)
_SAME = {"RTM_NEWADDR": "setting up uid map", "Failed to make / slave": "Creating new namespace failed"}


def not_installed() -> SandboxUnavailable:
    """There is no bubblewrap."""
    return SandboxUnavailable(
        "bubblewrap is not installed: no `bwrap` on PATH", "apt-get install bubblewrap (0.8 or newer)"
    )


def explain(output: str) -> SandboxUnavailable:
    """The known reason behind bubblewrap's error text, with the text itself."""
    text = output.strip()
    for symptom, known in _SAME.items():
        if symptom in text:
            return _explained(known, text)
    for symptom, _, _ in _KNOWN:
        if symptom in text:
            return _explained(symptom, text)
    return SandboxUnavailable(
        f"bubblewrap did not start: {text or 'no message'}",
        "see whether `bwrap --unshare-all --ro-bind / / true` runs, or choose sandbox=none knowingly",
    )


def _explained(symptom: str, text: str) -> SandboxUnavailable:
    cause, fix = next((cause, fix) for known, cause, fix in _KNOWN if known == symptom)
    return SandboxUnavailable(f"{cause} (it said: {text})", fix)
