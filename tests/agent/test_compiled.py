"""Code that the reference compiles once: who fills the folder, who reads it, and that no run changes it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from agent.compiled import Compiled, CompiledError, compiled_for
from agent.records import Budget
from agent.runner import Run, Runner
from agent.sandbox import Bubblewrap, Job, Limits, Mount, Unsandboxed
from agent.study import seal
from agent.task import Compiled as CompiledCode
from agent.workspace import Workspace
from tests.agent.study import LIMITS
from tests.agent.test_runner import LIAR
from tests.fake_task.fixture import toy_repository, toy_task

ROOT = Path(__file__).resolve().parents[2]
MADE = "made of the code as it was committed"
LEFT = ("kernel", "succeeded.json", "found")


class Bench:
    """A study's workspace, whose task compiles, and a runner."""

    def __init__(self, folder: Path, workspace: Workspace, runner: Runner) -> None:
        self.folder, self.workspace, self.runner = folder, workspace, runner

    def compiled(self, **changes: Any) -> Compiled | None:
        runner = replace(self.runner, **changes)
        return compiled_for(runner, self.workspace.head, self.folder / "vault")

    def run(self, *overrides: str) -> Run:
        found = self.compiled()
        assert found is not None
        return replace(self.runner, compiled=found.folder, keep=LEFT).run(
            self.workspace.path,
            [*self.runner.task.base, *overrides],
            seed=0,
            fold=0,
            folder=self.folder / "trial",
        )

    def patched(self, body: str) -> Run:
        (self.workspace.path / "train.py").write_text(LIAR + dedent(body))
        try:
            return self.run()
        finally:
            self.workspace.revert()

    def left(self, name: str) -> str:
        return (self.folder / "trial" / "run" / name).read_text()


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("bench")
    task = toy_task(toy_repository(folder / "repository"))
    task = replace(task, base=(*task.base, "compile=True"))
    with Workspace.create(task, "toy", folder / "runs") as workspace, closing(Bubblewrap()) as sandbox:
        runner = Runner(
            task=task,
            sandbox=sandbox,
            limits=lambda wall: Limits(wall_seconds=wall, **LIMITS),
            budget=Budget(1, 30.0, wall_factor=1.0, setup_seconds=20.0),
            sealed=seal(task, folder / "vault"),
            environment={"OMP_NUM_THREADS": "1"},
            keep=("kernel", "succeeded.json", "found"),
        )
        yield Bench(folder, workspace, runner)


def kernels(compiled: Compiled | None) -> dict[str, str]:
    assert compiled is not None
    return {
        str(file.relative_to(compiled.folder)): file.read_text()
        for file in compiled.folder.rglob("*")
        if file.is_file()
    }


def test_the_reference_fills_it_once_and_its_hash_is_kept(bench: Bench) -> None:
    first, second = bench.compiled(), bench.compiled()
    assert first is not None
    assert kernels(first) == {"deep/kernel": MADE}
    assert first == second
    assert first.facts["seconds"] > 0
    assert len(first.facts["sha256"]) == 40
    assert json.loads((first.folder.parent / "record.json").read_text()) == first.facts
    # of the run that filled it, nothing else is left
    assert {path.name for path in first.folder.parent.iterdir()} == {"files", "record.json"}


def test_it_is_filled_by_the_committed_code_whatever_stands_in_the_workspace(bench: Bench) -> None:
    environment = {"OMP_NUM_THREADS": "1", "ANOTHER": "machine"}
    (bench.workspace.path / "train.py").write_text("raise SystemExit(3)")
    other = bench.compiled(environment=environment)
    bench.workspace.revert()
    assert kernels(other) == {"deep/kernel": MADE}
    mine = bench.compiled()
    assert mine is not None
    assert other is not None
    assert mine.folder != other.folder


def test_runs_read_it(bench: Bench) -> None:
    assert bench.run().status == "completed"
    assert bench.left("kernel") == MADE
    assert json.loads(bench.left("config.yaml"))["kernels"] == "/compiled"


def test_a_patched_run_that_writes_to_it_changes_nothing_for_the_next(bench: Bench) -> None:
    before = bench.compiled()
    run = bench.patched("""
        import ctypes, shutil
        KERNELS = Path(dict(word.split("=", 1) for word in sys.argv[1:])["kernels"])
        kernel, mine = KERNELS / "deep" / "kernel", Path("/tmp/mine")
        shutil.copytree(KERNELS, mine)
        (mine / "deep" / "kernel").write_text("poison")
        libc = ctypes.CDLL(None, use_errno=True)

        def mount():
            if libc.mount(str(mine).encode(), str(KERNELS).encode(), None, 4096, None):
                raise OSError(ctypes.get_errno(), "mount")

        attacks = {
            "write": lambda: kernel.write_text("poison"),
            "append": lambda: kernel.open("a").write("poison"),
            "truncate": lambda: os.truncate(kernel, 0),
            "add": lambda: (KERNELS / "more").write_text("poison"),
            "unlink": kernel.unlink,
            "rename over": lambda: (KERNELS / "deep").rename(KERNELS / "gone"),
            "replace": lambda: os.rename(mine / "deep" / "kernel", kernel),
            "link": lambda: (KERNELS / "link").symlink_to(mine),
            "hard link": lambda: os.link(kernel, RUN / "kernel"),
            "open the modes": lambda: kernel.chmod(0o777),
            "open the folder": lambda: KERNELS.chmod(0o777),
            "swap the folder": lambda: os.rename(mine, KERNELS),
            "mount": mount,
        }
        succeeded = []
        for name, attack in attacks.items():
            try:
                attack()
            except OSError:
                continue
            succeeded.append(name)
        (RUN / "succeeded.json").write_text(json.dumps([succeeded, kernel.read_text()]))
        claim()
    """)
    assert run.status == "crashed"  # it embeds nothing
    assert json.loads(bench.left("succeeded.json")) == [[], MADE]
    after = bench.compiled()
    assert after == before
    assert kernels(after) == {"deep/kernel": MADE}
    assert bench.run().status == "completed"
    assert bench.left("kernel") == MADE


def test_what_a_run_compiles_beyond_it_ends_with_the_run(bench: Bench) -> None:
    bench.patched('Path("/tmp/compiled-kernel").write_text("poison"); claim()')
    bench.patched('(RUN / "found").write_text(str(Path("/tmp/compiled-kernel").exists())); claim()')
    assert bench.left("found") == "False"


def test_what_is_no_longer_what_the_reference_compiled_is_refused(bench: Bench) -> None:
    found = bench.compiled(environment={"OMP_NUM_THREADS": "1", "OF": "this test"})
    assert found is not None
    (found.folder / "deep" / "kernel").write_text("poison")
    with pytest.raises(CompiledError, match=r"is not what the reference compiled .*: delete "):
        bench.compiled(environment={"OMP_NUM_THREADS": "1", "OF": "this test"})


def test_a_reference_that_does_not_run_is_an_error_with_its_reason(bench: Bench) -> None:
    task = replace(bench.runner.task, base=(*bench.runner.task.base, "fault.kind=crash"))
    with pytest.raises(
        CompiledError, match=r"compile=True in task.base: .* has crashed: the toy was told to crash"
    ):
        bench.compiled(task=task)


def test_a_reference_that_compiles_nothing_is_an_error(bench: Bench) -> None:
    # a key that the toy's program ignores
    compiled = CompiledCode(when="compile=True", key="fault.kind", fill=("optimizer.steps=10",))
    task = replace(bench.runner.task, compiled=compiled)
    with pytest.raises(CompiledError, match="left nothing in "):
        bench.compiled(task=task)


def test_nothing_is_filled_that_nobody_asked_for_or_nobody_can_guard(bench: Bench) -> None:
    asked = bench.runner.task
    assert bench.compiled(task=replace(asked, base=("experiment=baseline",))) is None
    assert bench.compiled(task=replace(asked, compiled=None)) is None
    assert bench.compiled(sandbox=Unsandboxed()) is None


def test_no_proposal_may_set_what_belongs_to_the_machine(bench: Bench) -> None:
    assert bench.runner.task.lock_on("kernels")
    assert bench.runner.task.lock_on("compile")


def test_train_py_copies_what_it_may_not_write_to(tmp_path: Path) -> None:
    """Inside the sandbox torch gets a copy of its own, which it may lock and add to."""
    (tmp_path / "host" / "deep").mkdir(parents=True)
    (tmp_path / "host" / "deep" / "kernel").write_text(MADE)
    (tmp_path / "run").mkdir()
    code = """if True:
        import os, sys
        from pathlib import Path
        sys.path.insert(0, "/src")
        from eclip.compilation import use_cache
        use_cache(Path("/compiled"))
        mine = Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
        (mine / "deep" / "more").touch()
        print(mine, (mine / "deep" / "kernel").read_text())
    """
    job = Job(
        command=[sys.executable, "-c", code],
        run_dir=tmp_path / "run",
        mounts=[Mount(tmp_path / "host", "/compiled"), Mount(ROOT / "src", "/src")],
        environment={},
        limits=Limits(wall_seconds=120, **LIMITS),
        log_path=tmp_path / "log",
    )
    finished = Bubblewrap().run(job)
    assert finished.log_tail.startswith("/tmp/compiled-"), finished
    assert finished.log_tail.strip().endswith(MADE)
