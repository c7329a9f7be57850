"""One run of the toy task in bubblewrap: its outcome by evidence, its limits, what it may see, what it may claim."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from agent.claims import open_run_dir
from agent.records import Budget
from agent.runner import RESULT_BYTES, RESULT_KEYS, Run, Runner, _points
from agent.sandbox import Bubblewrap, Limits, Preload, Unsandboxed
from agent.study import seal
from agent.task import TaskError
from agent.workspace import Workspace
from tests.agent.study import LIMITS
from tests.fake_task.fixture import toy_repository, toy_task

# the start of a train.py that makes claims about a run that never was
LIAR = """
import json, os, sys
from pathlib import Path
RUN = Path(dict(word.split("=", 1) for word in sys.argv[1:])["run.dir"])
RESULT = {"status": "completed", "reason": "", "steps": 1, "train_seconds": 0.1, "setup_seconds": 0.1,
          "peak_memory_bytes": 1, "metrics": {}, "curve": [], "commit": None,
          "package": str(Path(__file__).parent / "src" / "toy")}
def claim(text=None, **changes):
    (RUN / "result.json").write_text(json.dumps({**RESULT, **changes}) if text is None else text)
"""


class Bench:
    """The toy in a workspace; runs it as it is, with overrides, or with another train.py."""

    def __init__(self, folder: Path, workspace: Workspace, runner: Runner) -> None:
        self.folder, self.workspace, self.runner = folder, workspace, runner

    def run(self, *overrides: str, stop: threading.Event | None = None, **changes: Any) -> Run:
        runner = replace(self.runner, **changes)
        arguments = [*runner.task.base, *overrides]
        return runner.run(
            self.workspace.path, arguments, seed=3, fold=1, folder=self.folder / "trial", stop=stop
        )

    def program(self, body: str, **changes: Any) -> Run:
        (self.workspace.path / "train.py").write_text(LIAR + dedent(body))
        try:
            return self.run(**changes)
        finally:
            self.workspace.revert()

    def left(self, name: str) -> Path:
        return self.folder / "trial" / "run" / name


@pytest.fixture(scope="module", params=["cold", "warm"])
def bench(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("bench")
    task = toy_task(toy_repository(folder / "repository"))
    task = replace(task, preload=Preload(("numpy", "hydra", "omegaconf")))
    sandbox = Bubblewrap(warm=request.param == "warm")
    notices: list[str] = []
    with Workspace.create(task, "toy", folder / "runs") as workspace:
        runner = Runner(
            task=task,
            sandbox=sandbox,
            limits=lambda wall: Limits(wall_seconds=wall, **LIMITS),
            budget=Budget(1, 30.0, wall_factor=1.0, setup_seconds=20.0),
            sealed=seal(task, folder / "vault"),
            environment={"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
            notice=notices.append,
        )
        yield Bench(folder, workspace, runner)
    sandbox.close()
    assert notices == []


@pytest.fixture(scope="module")
def completed(bench: Bench) -> tuple[Run, dict[str, Any], bool, str]:
    """(the run, its result.json, whether embeddings lay there afterwards, its log) of an honest run."""
    run = bench.run("optimizer.lr=0.3", "optimizer.steps=150")
    result = json.loads(bench.left("result.json").read_text())
    log = (bench.folder / "trial" / "log.txt").read_text()
    return run, result, bench.left("embeddings.safetensors").exists(), log


def test_a_completed_run_is_measured(completed):
    run, result, _, _ = completed
    assert (run.status, run.reason) == ("completed", "")
    assert (run.measurement.seed, run.measurement.fold) == (3, 1)
    assert 0 < run.measurement.score == run.measurement.metrics["mean_rank"] < 60
    assert run.measurement.train_seconds == run.train_seconds == result["train_seconds"]
    assert run.train_seconds < run.measurement.charged_seconds <= run.seconds
    assert run.measurement.peak_memory_bytes > 2**20


def test_the_curve_comes_along(completed):
    run, result, _, _ = completed
    assert len(run.curve) == result["steps"] == 150
    assert set(run.curve[0]) == {"step", "seconds", "loss", "learning_rate"}
    assert run.curve[-1]["loss"] < run.curve[0]["loss"]


def test_scored_embeddings_are_not_kept(completed):
    assert completed[2] is False


def test_what_the_runner_adds_is_what_the_task_says(bench, completed):
    config = json.loads(bench.left("config.yaml").read_text())
    assert config["seed"] == 3
    assert config["data"]["folds"] == [1]
    assert config["evaluation"] == "sealed"
    assert config["data"]["sealed"] == "/data"
    # three folds share the trial's 30 seconds
    assert config["budget"]["seconds"] == 10


@pytest.mark.parametrize(
    ("kind", "status", "reason"),
    [
        ("crash", "crashed", "the toy was told to crash"),
        ("diverge", "diverged", "loss nan at step 3"),
        ("out_of_memory", "out_of_memory", "no room beside 32 blocks"),
        ("silent", "crashed", "left no usable result: result.json: cannot be read"),
        ("'nan'", "crashed", "cannot be scored: fold1.image: not finite"),
        ("wrong_shape", "crashed", "shape (199, 8), expected (200, 8)"),
        ("other_package", "crashed", "ran toy from /elsewhere/toy, not from the workspace"),
    ],
)
def test_outcomes_are_told_by_evidence(bench, kind, status, reason):
    run = bench.run(f"fault.kind={kind}")
    assert (run.status, run.measurement) == (status, None)
    assert reason in run.reason
    assert run.seconds > 0


def test_a_failed_run_keeps_what_is_known_of_it(bench):
    run = bench.program(
        'claim(status="diverged", reason="x", curve=[{"step": 0, "loss": 2}], train_seconds=0.01)'
    )
    assert (run.status, run.train_seconds) == ("diverged", 0.01)
    assert run.curve == ({"step": 0.0, "loss": 2.0},)


def test_the_log_says_why_a_run_without_a_result_ended(bench):
    run = bench.program("print('first'); raise RuntimeError('no such luck')")
    assert run.reason == "exit code 1: RuntimeError: no such luck"
    assert "Traceback" in run.log_tail


def test_the_wall_limit_kills_what_ignores_signals(bench):
    short = Budget(1, 1.5, wall_factor=1.0, setup_seconds=1.0)
    run = bench.run("fault.kind=hang", budget=short)
    assert (run.status, run.reason) == ("timeout", "was still running at the wall limit and was killed")
    # (1.5 s / 3 folds) * 1.0 + 1.0 s, and the kill
    assert 1.5 <= run.seconds < 6


def test_memory_beyond_the_limit_is_out_of_memory(bench):
    def limits(wall: float) -> Limits:
        return Limits(wall_seconds=wall, **{**LIMITS, "memory_bytes": 2**28})

    run = bench.run("fault.kind=out_of_memory", "fault.megabytes=2000", limits=limits)
    assert run.status == "out_of_memory"


def test_a_stopped_study_stops_its_run(bench):
    stop = threading.Event()
    timer = threading.Timer(0.7, stop.set)
    timer.start()
    run = bench.run("fault.kind=hang", stop=stop)
    timer.join()
    assert run.status == "interrupted"
    assert run.seconds < 10


def test_masked_files_and_the_git_folder_are_hidden(bench):
    run = bench.program("""
        code = Path(__file__).parent
        print(repr((code / "src/toy/data.py").read_text()), repr((code / ".git").read_text()))
        sys.path.insert(0, str(code / "src"))
        from toy.data import draw
    """)
    assert "'' ''" in run.log_tail
    assert run.reason == "exit code 1: " + run.log_tail.strip().splitlines()[-1]
    assert "cannot import name 'draw'" in run.reason
    # the workspace itself is whole
    assert "def draw" in (bench.workspace.path / "src/toy/data.py").read_text()


def test_a_mask_that_hides_nothing_is_an_error(bench):
    """A file that was renamed would be shown otherwise, the embedded data set's pairs say, and nobody told."""
    with pytest.raises(TaskError, match=r"masked: src/toy/date\.\* names nothing"):
        bench.run(task=replace(bench.runner.task, masked=("src/toy/date.*",)))


def test_the_environment_is_what_was_given(bench, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    environment = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "COLOUR": "indigo"}
    run = bench.program("print(json.dumps(dict(os.environ)))", environment=environment)
    seen = dict(json.loads(run.log_tail))
    assert seen.pop("OMP_WAIT_POLICY") == "PASSIVE"
    assert (seen.pop("OMP_NUM_THREADS"), seen.pop("COLOUR")) == ("1", "indigo")
    # what the sandbox adds is about itself, and Python adds LC_CTYPE
    about_itself = "PATH HOME TMPDIR LANG USER LOGNAME PWD LC_CTYPE CUDA_CACHE_PATH PYTHONNOUSERSITE"
    assert set(seen) <= {*about_itself.split(), "PYTHONDONTWRITEBYTECODE"}
    assert "secret" not in str(seen)
    assert seen["HOME"] == "/tmp/home"


def test_a_run_starts_in_an_empty_folder(bench):
    bench.program("(RUN / 'left').write_text('a note')")
    run = bench.program("print(os.listdir(RUN))")
    assert run.log_tail.strip() == "[]"


def test_what_a_run_leaves_beside_the_contract_does_not_stay(bench):
    """A tree too deep to walk by recursion among it: the next run in the folder, a try-out say, must not meet it."""
    run = bench.program("""
        claim(status="diverged")
        (RUN / "config.yaml").symlink_to("result.json")
        (RUN / "train.log").write_bytes(bytes(2**24 + 1))
        for name in range(300):
            (RUN / f"{name}").write_text("x")
        os.chdir(RUN)
        for _ in range(1500):
            os.mkdir("deep")
            os.chdir("deep")
    """)
    assert (run.status, run.reason) == ("crashed", "wrote more than the sandbox allows and was killed")
    assert [path.name for path in bench.left(".").iterdir()] == ["result.json"]
    assert bench.program("claim(status='diverged')").status == "diverged"


NOT_A_RESULT = {
    "NaN": ("claim(train_seconds=float('nan'))", "holds NaN"),
    "infinity by exponent": ("claim(json.dumps(RESULT).replace('0.1', '1e999'))", "not finite"),
    "another key": ("claim(score=0.0)", "has unknown keys: score"),
    "a missing key": ("claim(json.dumps({'status': 'completed'}))", "lacks commit, curve"),
    "a key twice": ("claim(json.dumps(RESULT)[:-1] + ', \"steps\": 2}')", "has a key twice"),
    "a deep nest": ("claim(metrics=eval('[' * 30 + ']' * 30))", "nested more than 8 levels"),
    "a nest to blow the stack": ("claim('[' * 100_000)", "nested more than 8 levels"),
    "a number as text": ("claim(train_seconds='0.1')", "train_seconds must be float, not str"),
    "a list": ("claim('[]')", "is no JSON object"),
    "no JSON": ("claim('status: completed')", "is not JSON"),
    "too long": ("claim(reason='x' * 400_000)", "allowed are 262144"),
    "a link": ("claim(); (RUN / 'result.json').rename(RUN / 'x'); os.symlink('x', RUN / 'result.json')", "regular"),
    "a link to the host": ("os.symlink('/etc/hostname', RUN / 'result.json')", "is no regular file"),
    "a pipe": ("os.mkfifo(RUN / 'result.json')", "is no regular file"),
    "a folder": ("(RUN / 'result.json').mkdir()", "is no regular file"),
    "two names": ("claim(); os.link(RUN / 'result.json', RUN / 'y')", "has 2 names"),
}  # fmt: skip


@pytest.mark.parametrize("lie", NOT_A_RESULT)
def test_what_is_no_result_is_a_crash_with_a_reason(bench, lie):
    body, reason = NOT_A_RESULT[lie]
    run = bench.program(body)
    assert (run.status, run.measurement) == ("crashed", None)
    assert run.reason.startswith("left no usable result: result.json: ")
    assert reason in run.reason


@pytest.mark.parametrize("status", ["kept", "running", "timeout", "interrupted", ""])
def test_other_words_than_the_contracts_are_crashes(bench, status):
    assert bench.program(f"claim(status={status!r})").status == "crashed"


def test_reasons_cannot_paint_the_terminal(bench):
    run = bench.program(r'claim(status="diverged", reason="\x1b[2Jwon\x07" + "x" * 900)')
    assert run.reason.startswith("wonxxx")
    assert len(run.reason) <= 500


def test_claimed_seconds_are_bounded_by_measured_ones(bench):
    assert bench.program('claim(status="diverged", train_seconds=1e9)').train_seconds < 20
    assert bench.program('claim(status="diverged", train_seconds=-5)').train_seconds == 0


def test_training_beyond_the_budget_buys_no_score(bench):
    """A patch, or one huge step, that trains on until the wall limit is a timeout, and charged."""
    late = Budget(1, 0.003, wall_factor=2.0, setup_seconds=20.0)
    run = bench.program("claim(train_seconds=0.0021)", budget=late)
    assert (run.status, run.measurement) == ("timeout", None)
    assert run.reason == "trained for 0.0 s; more than 0.0 s buys no score"
    assert run.seconds > run.train_seconds == 0.0021
    assert "embeddings" in bench.program("claim(train_seconds=0.0019)", budget=late).reason


def test_a_long_curve_is_cut(bench):
    run = bench.program('claim(status="diverged", curve=[{"step": i} for i in range(1000)])')
    assert len(run.curve) == 200


def test_points_are_finite_numbers_under_short_plain_names():
    points = _points(
        [{"loss": 1, "big": 1e308 * 10, "flag": True, "text": "x", "a\x1b[1mb" + "c" * 90: 2}, "no", 3]
    )
    assert points[0].pop("loss") == 1.0
    assert len(points) == 1
    [name] = points[0]
    assert name.startswith("abc")
    assert len(name) <= 40


def test_the_longest_result_that_the_real_task_writes_is_read_whole(tmp_path):
    from omegaconf import OmegaConf

    from eclip.run_directory import Result, RunDirectory

    names = "fold step seconds learning_rate logit_scale gradient_norm loss contrastive expert reconstruction".split()
    point = dict.fromkeys([*names, *(f"a_proposals_own_loss_{i}" for i in range(10))], -1.23456789e-08)
    result = Result(curve=[point] * 5000, reason="\u6d6e" * 2000)
    RunDirectory(tmp_path, OmegaConf.create({})).write(result)
    with open_run_dir(tmp_path) as claims:
        read = claims.read_json("result.json", RESULT_KEYS, cap=RESULT_BYTES)
    assert len(_points(read["curve"])) == 200
    assert set(_points(read["curve"])[0]) == set(point)


def test_without_a_sandbox_paths_are_the_hosts(bench):
    run = bench.run(sandbox=Unsandboxed())
    assert run.status == "completed"
    config = json.loads(bench.left("config.yaml").read_text())
    assert config["data"]["sealed"] == str(bench.runner.sealed[1].folder)


def test_a_run_leaves_the_code_as_it_was(bench):
    run = bench.program("(Path(__file__).parent / 'src/toy/model.py').write_text('')")
    assert "Read-only file system" in run.reason
    assert bench.workspace.diff() == ""
