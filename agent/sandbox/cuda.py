"""A sandbox that shows GPUs enters; it leaves if CUDA starts in it, and the reason why not otherwise."""

from __future__ import annotations

from collections.abc import Iterable

from agent.sandbox.base import SandboxUnavailable

# runs inside: the driver alone is asked, so that no library need be imported, and its answers' numbers are CUresult's
PROBE = """
import ctypes, sys
try:
    cuda = ctypes.CDLL("libcuda.so.1")
except OSError as error:
    sys.exit(f"no driver library: {error}")
code, count = cuda.cuInit(0), ctypes.c_int(0)
if code == 0:
    code = cuda.cuDeviceGetCount(ctypes.byref(count))
sys.exit(f"CUDA answers {code}" if code else "CUDA finds no device" if count.value == 0 else 0)
"""
_NEEDED = ("/dev/nvidiactl", "/dev/nvidia-uvm")
_WITHOUT = "or train on the CPU: sandbox.backend.gpus=none"


def unusable(said: str, devices: Iterable[str]) -> SandboxUnavailable:
    """What the probe said, with what is known to lead there and how to mend it."""
    nodes = set(devices)
    missing = [node for node in _NEEDED if node not in nodes] if nodes != {"/dev/dxg"} else []
    cause = f"the GPU does not work inside the sandbox: {said}"
    if "no driver library" in said:
        fix = (
            "if the driver's libraries are outside /usr, name their folder (the one of libcuda.so.1): "
            f"sandbox.backend.libraries=[FOLDER]; {_WITHOUT}"
        )
    elif missing:
        cause += f"; this machine has no {' and no '.join(missing)}"
        fix = f"as root, `nvidia-modprobe -u -c 0`, or run any CUDA program outside once, which makes them; {_WITHOUT}"
    else:
        fix = (
            "see whether `python -c 'import ctypes; print(ctypes.CDLL(\"libcuda.so.1\").cuInit(0))'` prints 0 outside; "
            f"if it does, please report this with the driver's version; {_WITHOUT}"
        )
    return SandboxUnavailable(cause, fix)
