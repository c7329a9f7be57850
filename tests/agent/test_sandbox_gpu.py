"""GPUs in the sandbox, without one: the null device under NVIDIA's names, and a driver library of ten lines."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from agent.executors.base import ExecutorError
from agent.executors.local import Local
from agent.sandbox import Bubblewrap, SandboxUnavailable, Unsandboxed
from agent.sandbox.devices import choice_of_cards, gpu_devices
from tests.agent.test_sandbox_start import make_nodes
from tests.contract.sandbox import ROOT, Lab, job, open_lab

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make device nodes")
DRIVER = """
#include <fcntl.h>
int cuInit(unsigned flags) {
    if (open("/dev/nvidiactl", O_RDWR) < 0) return 100;
    return open("/dev/nvidia-uvm", O_RDWR) < 0 ? 999 : 0;
}
int cuDeviceGetCount(int *count) { *count = open("/dev/nvidia1", O_RDWR) >= 0; return 0; }
"""


@pytest.fixture
def lab() -> Iterator[Lab]:
    yield from open_lab("caller")


@pytest.fixture
def driver(lab: Lab) -> Path:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler to make a driver library with")
    folder = lab.folder / "driver"
    folder.mkdir()
    (folder / "driver.c").write_text(DRIVER)
    library = str(folder / "libcuda.so.1")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, str(folder / "driver.c")], check=True)
    return folder


def sandbox_of(dev: Path, gpus: list[int], libraries: tuple[str, ...] = ()) -> Bubblewrap:
    found = Bubblewrap(gpus="none", libraries=libraries)
    found._gpus, found._devices = gpus, gpu_devices(gpus, dev)
    return found


@root_only
def test_a_gpu_that_works_inside_passes(lab: Lab, driver: Path) -> None:
    """The library is found in its own folder, and the nodes can be opened, through the filter and as nobody."""
    sandbox_of(make_nodes(lab.folder / "dev"), [1], (str(driver),)).check()


@root_only
def test_one_that_does_not_is_an_error_that_says_how_to_mend_it(lab: Lab, driver: Path) -> None:
    dev = make_nodes(lab.folder / "dev")
    with pytest.raises(SandboxUnavailable, match=r"no driver library: libcuda\.so\.1") as refused:
        sandbox_of(dev, [1]).check()
    assert "sandbox.backend.libraries=[FOLDER]" in refused.value.fix
    with pytest.raises(SandboxUnavailable, match="CUDA finds no device"):
        sandbox_of(dev, [0], (str(driver),)).check()
    (dev / "nvidia-uvm").unlink()
    with pytest.raises(
        SandboxUnavailable, match=r"CUDA answers 999; this machine has no /dev/nvidia-uvm"
    ) as refused:
        sandbox_of(dev, [1], (str(driver),)).check()
    assert "nvidia-modprobe -u" in refused.value.fix


@root_only
def test_the_gpus_of_a_windows_around_are_one_node(lab: Lab) -> None:
    dev = make_nodes(lab.folder / "dev")
    for name in ("nvidia0", "nvidia1"):
        (dev / name).rename(dev / "dxg")
    assert list(gpu_devices("all", dev)) == ["/dev/dxg"]
    assert gpu_devices("none", dev) == {}


def test_what_a_person_told_cuda_holds_inside_too(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8a56")
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    assert choice_of_cards(os.environ) == {"CUDA_VISIBLE_DEVICES": "GPU-8a56"}
    for sandbox in (Bubblewrap(), Unsandboxed()):
        command = lab.write("tell(seen=os.environ.get('CUDA_VISIBLE_DEVICES'))")
        assert json.loads(sandbox.run(job(lab, command)).log_tail) == {"seen": "GPU-8a56"}
        shutil.rmtree(lab.run_dir)
        lab.run_dir.mkdir()
    assert "CUDA_VISIBLE_DEVICES" not in Bubblewrap(gpus="none")._environment([sys.executable], {})


def test_workers_are_not_given_cards_that_were_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = {"/dev/nvidia0": Path("/dev/null"), "/dev/nvidia1": Path("/dev/null")}
    for module in ("agent.sandbox.none", "agent.executors.local"):
        monkeypatch.setattr(f"{module}.gpu_devices", lambda: cards)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert Local(2)._cards(Unsandboxed()) == [0, 1]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with pytest.raises(ExecutorError, match=r"CUDA_VISIBLE_DEVICES=1 .*sandbox\.backend\.gpus=\[0, 1\]"):
        Local(2)._cards(Unsandboxed())


def test_what_a_study_preloads_leaves_the_gpu_alone() -> None:
    """A process that has started CUDA cannot be forked; nor may it ask whether there is a GPU by starting it."""
    libraries = yaml.safe_load((ROOT / "configs" / "task" / "eclip.yaml").read_text())["preload"]
    program = f"""
import torch
from agent.sandbox.preloaded import preload
def touched(*_, **__): raise SystemExit("CUDA was asked")
for name in ("is_available", "device_count", "init", "_lazy_init", "get_device_properties"):
    setattr(torch.cuda, name, touched)
preload({libraries["modules"]!r}, {libraries["hidden"]!r})
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
