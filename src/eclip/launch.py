"""Trainer settings go in; the processes of a run are started or found, met and parted from: `Ranks` come out."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_original_cwd, to_absolute_path

from eclip.config import ConfigError, Trainer, check_shares
from eclip.gpu import on_gpu
from eclip.ranks import ALONE, Ranks

# seconds that a process has to notice by itself that another one is gone
GRACE = 20.0
# seconds within which all must have started: imports on a busy machine, a queue's slowest node
MEETING = timedelta(minutes=10)
_runs = itertools.count()
Lost = Callable[[str], None]


def devices(settings: Trainer) -> int:
    """Processes a node. ConfigError where `auto` has no GPU to count."""
    if settings.devices != "auto":
        return settings.devices
    if not on_gpu(settings):
        raise ConfigError(
            "trainer.devices=auto: no GPU is seen; say how many processes share the CPU: trainer.devices=2"
        )
    return torch.cuda.device_count()


@contextmanager
def joined(settings: Trainer, lost: Lost) -> Iterator[Ranks]:
    """All processes of the run meet on entering and part on leaving.

    Started by torchrun or srun, this process is one of theirs; else it starts the others with its own command.
    `lost` is called from a thread when a child has died and this process does not come to an end by itself.
    """
    local_size = devices(settings)
    size = local_size * settings.num_nodes
    check_shares(settings.batch_size, size)
    if size == 1:
        _refuse_strangers()
        yield ALONE
        return
    before = dict(os.environ)
    _share_cores(settings, local_size)
    try:
        place = _placed_outside(os.environ, local_size, settings.num_nodes)
        if place is not None:
            os.environ.update(place)
            with _group(settings, None, int(place["RANK"]), size) as ranks:
                yield ranks
        else:
            with _children(settings, size, lost) as store, _group(settings, store, 0, size) as ranks:
                yield ranks
    finally:
        os.environ.clear()
        os.environ.update(before)


def _refuse_strangers() -> None:
    """torchrun with a trainer of one process would be as many runs in one folder."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            f"WORLD_SIZE={os.environ['WORLD_SIZE']} processes were started, for a trainer of one: add trainer=ddp "
            "trainer.devices=(processes a node) trainer.num_nodes=(nodes)"
        )


def _share_cores(settings: Trainer, local_size: int) -> None:
    """Threads of each process: as set, else an equal part of the cores. Lightning keeps what it finds here."""
    if settings.threads is None and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // local_size))
    os.environ["OMP_NUM_THREADS"] = str(settings.threads or torch.get_num_threads())


def _placed_outside(environment: Mapping[str, str], local_size: int, nodes: int) -> dict[str, str] | None:
    """This process's place, as torchrun's variables; None where nobody has started its fellows.

    ConfigError where what was started is not what the settings ask for.
    """
    size = local_size * nodes
    if "RANK" in environment and "LOCAL_RANK" in environment:
        node = environment.get("GROUP_RANK", environment.get("NODE_RANK", "0"))
        kept = {name: environment[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
        place, starter = kept | {"NODE_RANK": node}, "WORLD_SIZE"
    elif environment.get("SLURM_NTASKS", "1") != "1" and "SLURM_PROCID" in environment:
        from lightning.fabric.plugins.environments import SLURMEnvironment

        root = SLURMEnvironment.resolve_root_node_address(environment["SLURM_NODELIST"])
        port = str(15000 + int(environment["SLURM_JOB_ID"][-4:]))  # the same on every node
        place, starter = (
            {
                "RANK": environment["SLURM_PROCID"],
                "LOCAL_RANK": environment["SLURM_LOCALID"],
                "NODE_RANK": environment["SLURM_NODEID"],
                "WORLD_SIZE": environment["SLURM_NTASKS"],
                "MASTER_ADDR": environment.get("MASTER_ADDR", root),
                "MASTER_PORT": environment.get("MASTER_PORT", port),
            },
            "SLURM_NTASKS",
        )
    elif nodes > 1:
        raise ConfigError(
            f"trainer.num_nodes={nodes}: start the processes on every node with torchrun or srun (docs/ddp.md)"
        )
    else:
        return None
    if int(place["WORLD_SIZE"]) != size:
        raise ConfigError(
            f"{starter}={place['WORLD_SIZE']} processes were started, and the settings ask for {size}: "
            f"trainer.devices={local_size} (a node) x trainer.num_nodes={nodes}"
        )
    if int(place["RANK"]) != int(place["NODE_RANK"]) * local_size + int(place["LOCAL_RANK"]):
        raise ConfigError("ranks are not counted node by node: srun --distribution=block")
    return place


@contextmanager
def _group(settings: Trainer, store: Any, rank: int, size: int) -> Iterator[Ranks]:
    """torch's process group, as long as the context lasts."""
    timeout, local_rank = timedelta(seconds=settings.timeout), int(os.environ["LOCAL_RANK"])
    number = 0
    if store is None:
        store, _, _ = next(iter(dist.rendezvous("env://", timeout=MEETING)))
        number = next(_runs)  # the runs of a multirun under torchrun meet in one store
    store = dist.PrefixStore(f"run{number}", store)
    store.set(f"here{rank}", "")
    store.wait([f"here{other}" for other in range(size)], MEETING)
    gpu = on_gpu(settings)
    if gpu:
        torch.cuda.set_device(local_rank)
    dist.init_process_group(
        "nccl" if gpu else "gloo",
        store=store,
        rank=rank,
        world_size=size,
        timeout=timeout,
    )
    host = dist.new_group(backend="gloo", timeout=timeout) if gpu else dist.group.WORLD
    try:
        yield Ranks(rank, size, local_rank, host, store)
    finally:
        dist.destroy_process_group()


@contextmanager
def _children(settings: Trainer, size: int, lost: Lost) -> Iterator[Any]:
    """The store where the processes meet, and this command once more for each rank but 0, which is this one."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # a host's own name need not resolve
    store = dist.TCPStore("127.0.0.1", 0, size, is_master=True, wait_for_workers=False)
    common = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "WORLD_SIZE": str(size),
        "NODE_RANK": "0",
    }
    command, folder = again()
    children = []
    for rank in range(1, size):
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        children.append(
            subprocess.Popen(command, cwd=folder, env=os.environ | common | place, stdin=subprocess.DEVNULL)
        )
    os.environ.update(common | {"RANK": "0", "LOCAL_RANK": "0"})
    left = threading.Event()
    for rank, child in enumerate(children, 1):
        threading.Thread(target=_watch, args=(rank, child, left, lost), daemon=True).start()
    patience = 1.0
    try:
        yield store
        patience = GRACE
    finally:
        left.set()
        _part_from(children, patience)


def again() -> tuple[list[str], str]:
    """(the command that does this Hydra job once more, into the same folder; the folder it was given in)."""
    if not HydraConfig.initialized():
        raise ConfigError(
            "trainer.devices > 1: start the run by `python train.py` or by torchrun (docs/ddp.md)"
        )
    hydra = HydraConfig.get()
    searched = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
    kept = [
        item for item in hydra.overrides.hydra if not re.match(r"\+*hydra[./](run|sweep|mode|launcher)", item)
    ]
    return [
        *(sys.executable, to_absolute_path(sys.argv[0]), "--config-name", str(hydra.job.config_name)),
        *(option for path in searched for option in ("--config-dir", path)),
        *kept,
        *hydra.overrides.task,
        # quoted: Hydra's grammar would take a path apart
        f"hydra.run.dir='{hydra.runtime.output_dir}'",
    ], get_original_cwd()


def _watch(rank: int, child: subprocess.Popen[bytes], left: threading.Event, lost: Lost) -> None:
    if child.wait() and not left.wait(GRACE):
        lost(f"rank {rank} ended with status {child.returncode}")


def _part_from(children: list[subprocess.Popen[bytes]], patience: float) -> None:
    """They end by themselves within so many seconds, or are ended."""
    for child in children:
        try:
            child.wait(patience)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
