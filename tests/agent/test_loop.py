"""Whole studies of the toy task: kept and reverted, rejected and duplicate, failed, stopped, killed and resumed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from agent.acceptance import delta
from agent.git import Git
from agent.ledger import Ledger
from agent.loop import StudyFailed
from agent.measured import measured
from agent.observers import Observers
from agent.records import Charges, Proposal
from agent.sandbox import Bubblewrap
from agent.searchers.base import Searcher
from agent.workdesk import WorkDesk
from agent.workspace import WorkspaceError
from tests.agent.study import accounts, toy, toy_loop

GOOD = {"optimizer.lr": 0.3, "optimizer.steps": 150}
EDIT = {"path": "src/toy/model.py", "old": "np.tanh", "new": "np.sin"}


def study_of(folder: Path, name: str = "toy"):
    return Ledger.open(f"sqlite:///{folder}/ledger.db").study(name)


def run(folder, proposals, **options):
    with toy_loop(folder, proposals, **options) as loop:
        reason = loop.run()
        return loop, reason, loop.ledger.trials()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One study that sees every way a trial can go."""
    folder = tmp_path_factory.mktemp("study")
    proposals = [
        {"overrides": GOOD, "hypothesis": "it learns too slowly"},
        {"overrides": GOOD},
        {"overrides": {"optimizer.lr": 0.0011, "optimizer.steps": 10}},
        {"overrides": {"optimizer.lr": "fast"}},
        {"overrides": {"fault.kind": "crash"}},
        {"overrides": {"fault.kind": "diverge"}},
        {"overrides": {"fault.kind": "nan"}},
        {"overrides": {"fault.kind": "constant"}},
        {"overrides": {"fault.kind": "wrong_shape"}},
        {"overrides": {"fault.kind": "other_package"}},
        {"overrides": {"fault.kind": "silent"}},
        {"edits": [EDIT], "hypothesis": "a sine bends more"},
        {"edits": [{"path": "../../escape.py", "old": "a", "new": "b"}]},
        "no object",
    ]
    loop, reason, trials = run(folder, proposals)
    return folder, loop, reason, trials


def test_the_study_ends_when_the_queue_does(finished):
    _, _, reason, trials = finished
    assert reason == "queue has nothing more to propose"
    assert len(trials) == 15


def test_every_outcome_is_told_by_evidence(finished):
    outcomes = [trial.outcome.status for trial in finished[3]]
    assert outcomes[:3] == ["completed", "completed", "duplicate"]
    assert outcomes[3] == "completed"
    assert outcomes[4:8] == ["rejected", "crashed", "diverged", "crashed"]
    assert outcomes[9:12] == ["crashed"] * 3
    assert outcomes[13:] == ["rejected", "rejected"]


def test_reasons_teach(finished):
    reasons = [trial.outcome.reason for trial in finished[3]]
    assert "trial 1" in reasons[2]
    assert "optimizer.lr='fast': expected a number" in reasons[4]
    assert "told to crash" in reasons[5]
    assert "not finite" in reasons[7]
    assert "shape" in reasons[9]
    assert "not from the workspace" in reasons[10]
    assert "result" in reasons[11]


def test_constant_embeddings_win_nothing(finished):
    constant = finished[3][8]
    assert constant.outcome.status == "completed"
    assert constant.verdict.decision == "reverted"
    assert constant.verdict.delta > 0


def test_a_hopeless_trial_is_stopped_after_its_first_fold(finished):
    hopeless = finished[3][3]
    assert hopeless.outcome.stopped_early
    assert len(hopeless.outcome.measurements) == 1


def test_what_is_kept_is_a_commit_with_its_recipe(finished):
    folder, loop, _, trials = finished
    kept = [trial for trial in trials if trial.verdict.decision == "kept"]
    assert kept[0].number == 1
    git = Git(folder / "repository" / ".git")
    log = git("log", "--format=%s", "main..lab/toy").splitlines()
    assert len(log) == len(kept)
    message = git("log", "-1", "--format=%B", kept[0].commit)
    assert "it learns too slowly" in message
    assert "optimizer.lr" in message
    assert "lr: 0.3" in git("show", "lab/toy:configs/recipe/lab.yaml")
    assert loop.ledger.best().commit == git("rev-parse", "lab/toy")


def test_the_users_repository_is_as_it_was(finished):
    git = Git(
        finished[0] / "repository" / ".git", finished[0] / "repository", finished[0] / "repository" / ".git"
    )
    assert git("status", "--porcelain") == ""
    assert git("symbolic-ref", "HEAD") == "refs/heads/main"
    assert git("log", "--format=%s", "main") == "The toy"


def test_everything_is_charged(finished):
    _, loop, _, trials = finished
    accounts(loop.ledger)
    assert all(trial.charges.seconds > 0 for trial in trials)
    assert loop.ledger.spent().runs == sum(trial.charges.runs for trial in trials) > 10


def test_an_edit_is_kept_in_files(finished):
    folder = finished[0]
    assert "np.sin" in (folder / "runs" / "toy" / "0012" / "edits.diff").read_text()
    assert not (folder / "escape.py").exists()


def test_trials_end_a_study(tmp_path):
    _, reason, trials = run(tmp_path, None, trials=2)
    assert reason == "all 2 trials are used"
    assert len(trials) == 3


def test_a_hanging_run_is_killed_at_the_wall_limit(tmp_path):
    hang = [{"overrides": {"fault.kind": "hang"}}]
    began = time.monotonic()
    _, _, trials = run(tmp_path, hang, seconds=3.0, setup_seconds=3.0)
    assert trials[1].outcome.status == "timeout"
    assert trials[1].charges.seconds >= 4
    assert time.monotonic() - began < 30


def test_a_broken_reference_stops_the_study_and_says_why(tmp_path):
    root = toy(tmp_path / "repository").root
    (root / "src" / "toy" / "model.py").write_text("raise RuntimeError('no model here')\n")
    Git(root / ".git", root, root / ".git")("commit", "-aqm", "Broken")
    with toy_loop(tmp_path, []) as loop, pytest.raises(StudyFailed, match="no model here"):
        loop.run()
    [reference] = study_of(tmp_path).trials()
    assert reference.outcome.status == "crashed"


def test_paired_acceptance_reruns_on_fresh_seeds_and_charges_it(tmp_path):
    rule = {
        "name": "paired",
        "floor_seeds": 2,
        "hopeless_below": None,
        "keep_above": 0.9999,
        "revert_below": 1e-6,
        "keep_at_limit": 0.5,
        "max_reruns": 1,
    }
    _, _, trials = run(tmp_path, [{"overrides": {"optimizer.lr": 0.2}}], acceptance=rule)
    assert len(trials[0].outcome.measurements) == 6
    candidate = trials[1]
    assert candidate.verdict.reruns == 1
    assert {item.seed for item in candidate.outcome.measurements} == {0, 1}
    assert 0 < candidate.verdict.probability < 1


class Paid(Searcher):
    """Every proposal costs half a dollar, which the desk is told as a model's client tells it."""

    name = "paid"
    desk: WorkDesk

    def ask(self, history):
        self.desk.log("llm call", seconds=1.0, usd=0.5)
        self.desk.charge(0.5, 1.0)
        return Proposal({"optimizer.steps": 10 + len(history)}, searcher=self.name)

    def tell(self, trial): ...


@pytest.mark.parametrize("written", ["calls settled", "asked without a trial"])
def test_a_kill_between_a_charge_and_its_settlement_charges_nothing_twice(tmp_path, monkeypatch, written):
    def desk_of(loop):
        return WorkDesk(loop.ledger, loop.workspace, loop.space, loop.runners[0], loop.folder)

    with toy_loop(tmp_path, searcher=Paid(), folds=(0,), trials=2) as loop:
        loop.searcher.desk = loop.desk = desk_of(loop)
        log = loop.ledger.log

        def killed(event, **data):
            if event == written:
                if event != "calls settled":
                    log(event, **data)
                raise KeyboardInterrupt
            log(event, **data)

        if written != "calls settled":  # a round that comes to nothing
            monkeypatch.setattr(loop.searcher, "tell", lambda trial: loop.searcher.ask([]) and 1 / 0)
        monkeypatch.setattr(loop.ledger, "log", killed)
        with pytest.raises(KeyboardInterrupt):
            loop.run()
    with toy_loop(tmp_path, searcher=Paid(), folds=(0,), trials=2) as loop:
        loop.searcher.desk = loop.desk = desk_of(loop)
        assert loop.desk.pending == Charges()
        loop.run()
        calls = sum(event["usd"] for event in loop.ledger.events() if event["event"] == "llm call")
        assert loop.ledger.spent().usd == calls


UNDECIDED = {
    "name": "paired", "floor_seeds": 1, "hopeless_below": None, "keep_above": 0.9999999, "revert_below": 1e-9,
    "keep_at_limit": 0.99999, "max_reruns": 1,
}  # fmt: skip


class Watcher:
    """Does something when the second run on seed 1 has begun: the recipe's, on its second fold."""

    def __init__(self, then):
        self.then, self.seen = then, False

    def progress(self, number, phase):
        if number and phase.startswith("seed 1, fold 1") and not self.seen:
            self.seen = True
            self.then()

    def started(self, ledger): ...

    def trial_started(self, trial): ...

    def trial_finished(self, trial, ledger): ...

    def ended(self, ledger): ...


def test_a_recipe_measured_on_some_folds_is_measured_on_the_others(tmp_path):
    """Stopped within the recipe's re-run: left incomplete, that seed would never count again, though paid for."""
    near = [{"overrides": {"optimizer.steps": 42}}]
    with toy_loop(tmp_path, near, acceptance=UNDECIDED) as loop:
        loop.observers = Observers([Watcher(loop.stop.set)])
        assert loop.run() == "stopped"
    with toy_loop(tmp_path, near, acceptance=UNDECIDED) as loop:
        loop.run()
        recipe, candidate = measured(loop.ledger)[0], loop.ledger.trials()[2]
    assert sorted((item.seed, item.fold) for item in recipe) == [(s, f) for s in (0, 1) for f in (0, 1, 2)]
    # its own two seeds, and the two folds of the recipe that were missing
    assert candidate.charges.runs == 8
    assert "on 2 seeds x 3 folds" in candidate.verdict.reason
    assert candidate.verdict.delta == pytest.approx(delta(candidate.outcome.measurements, recipe)[0])


def test_a_recipe_that_fails_on_a_fresh_seed_is_no_failure_of_the_candidate(tmp_path):
    with toy_loop(tmp_path, [{"overrides": {"optimizer.steps": 42}}], acceptance=UNDECIDED) as loop:
        sealed = loop.experiment.runner.sealed

        def spoil():
            for fold in sealed.values():
                (fold.folder / "train.safetensors").write_bytes(b"")

        loop.observers = Observers([Watcher(spoil)])
        loop.run()
        candidate = loop.ledger.trials()[1]
    assert candidate.outcome.status == "completed"
    assert len(candidate.outcome.measurements) == 3
    assert candidate.verdict.decision == "reverted"
    assert candidate.verdict.reason.startswith("the recipe's re-run: crashed: ")


class StopAfter:
    """Sets the loop's stop event when trial `number` begins, as Ctrl-C would."""

    def __init__(self, number: int) -> None:
        self.number, self.loop = number, None

    def trial_started(self, trial):
        if trial.number == self.number:
            self.loop.stop.set()

    def started(self, ledger): ...

    def progress(self, number, phase): ...

    def trial_finished(self, trial, ledger): ...

    def ended(self, ledger): ...


def test_ctrl_c_charges_the_trial_and_the_study_goes_on_later(tmp_path):
    stopper = StopAfter(2)
    with toy_loop(tmp_path, None, trials=3, observers=[stopper]) as loop:
        stopper.loop = loop
        assert loop.run() == "stopped"
    assert study_of(tmp_path).trials()[2].outcome.status == "interrupted"
    with toy_loop(tmp_path, None, trials=3) as loop:
        assert loop.run() == "all 3 trials are used"
        trials = loop.ledger.trials()
        accounts(loop.ledger)
    # the interrupted proposal is asked for again, so the searcher proposes as if nothing had happened
    assert trials[3].proposal.overrides == trials[2].proposal.overrides
    with toy_loop(tmp_path / "whole", None, trials=3) as loop:
        loop.run()
        whole = [trial.proposal.overrides for trial in loop.ledger.trials()]
    assert [trial.proposal.overrides for trial in trials if trial.number != 2][:3] == whole[:3]


def test_a_second_loop_is_told_that_the_study_is_in_use(tmp_path, monkeypatch):
    monkeypatch.setattr("agent.workspace.LOCK_SECONDS", 0.1)
    with toy_loop(tmp_path, []), pytest.raises(WorkspaceError, match="in use"), toy_loop(tmp_path, []):
        pass


def descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


@pytest.mark.parametrize(("workers", "most", "trials"), [(1, 20, 10), (3, 8, 18)])
def test_kill_minus_nine_at_random_moments_loses_and_double_charges_nothing(tmp_path, workers, most, trials):
    """The loop, the sandbox or a run is killed, and the study is started again until it ends."""
    dice, kills = random.Random(7), 0
    command = [sys.executable, "-m", "tests.agent.study", str(tmp_path), str(trials), str(workers)]
    environment = {**os.environ, "PYTHONPATH": f"{Path.cwd() / 'src'}:{Path.cwd()}"}
    for _ in range(60):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if kills < most:
            deadline = time.monotonic() + dice.uniform(0.8, 3)
            while time.monotonic() < deadline and process.poll() is None:
                time.sleep(0.01)
            victims = descendants(psutil.Process(process.pid)) if process.poll() is None else []
            if victims:
                victim = dice.choice(victims) if dice.random() < 0.5 else victims[0]
                kills += 1
                with suppress(psutil.NoSuchProcess):
                    victim.send_signal(signal.SIGKILL)
        output, _ = process.communicate(timeout=120)
        if process.returncode == 0:
            break
        # a sandbox or a reference that was killed stops the study in order, with a reason
        stopped = b"reference did not run" in output or b"bubblewrap did not start" in output
        assert process.returncode == -signal.SIGKILL or stopped, output.decode()
    ledger = study_of(tmp_path)
    accounts(ledger)
    counted = [
        t for t in ledger.trials() if t.outcome.status != "interrupted" and t.proposal.route != "reference"
    ]
    assert len(counted) == trials
    assert kills > 3
    git = Git(tmp_path / "repository" / ".git")
    kept = [trial for trial in ledger.trials() if trial.verdict.decision == "kept"]
    assert len(git("log", "--format=%s", "main..lab/toy").splitlines()) == len(kept)
    # what completed, whenever that was written, has its whole curve
    for trial in ledger.trials():
        if trial.outcome.status == "completed":
            folds = {item.fold for item in trial.outcome.measurements}
            assert {point["fold"] for point in trial.outcome.curve} == folds
            assert len(trial.outcome.curve) == len(trial.outcome.measurements) * len(
                {point["step"] for point in trial.outcome.curve}
            )
    assert Bubblewrap.name in ledger.spec.sandbox
