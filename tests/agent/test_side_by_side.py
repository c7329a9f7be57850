"""Studies of the toy task with several trials at a time: what is kept, on what it was measured, what it cost."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import pytest

from agent.executors.base import ExecutorError
from agent.executors.local import Local
from agent.git import Git
from agent.ledger import Ledger, LedgerError
from agent.records import Charges, Edit, Proposal
from agent.sandbox import Bubblewrap, Unsandboxed
from agent.searchers.base import Searcher
from tests.agent.study import accounts, toy_loop

SLOW = {"name": "greedy", "floor_seeds": 1, "hopeless_below": None}
BETTER, BEST = {"optimizer.steps": 100}, {"optimizer.lr": 0.3, "optimizer.steps": 150}


class Batches(Searcher):
    """Proposes what it is given, a list at a time, however many trials may run."""

    name = "batches"

    def __init__(self, *batches):
        self.batches, self.asked = list(batches), []

    def ask_many(self, history, count):
        self.asked.append(count)
        return [replace(p, searcher=self.name) for p in self.batches.pop(0)] if self.batches else []


def run(folder, *batches, workers=3, **options):
    options = {"folds": (0,), "acceptance": SLOW, **options}
    with toy_loop(folder, searcher=Batches(*batches), workers=workers, **options) as loop:
        reason = loop.run()
        accounts(loop.ledger)
        return loop, reason, loop.ledger.trials()


def test_the_best_becomes_the_recipe_and_the_others_are_measured_on_top_of_it(tmp_path):
    proposals = [
        Proposal({"optimizer.steps": 60}),
        Proposal({"optimizer.lr": 0.3}, hypothesis="too slow"),
        Proposal(edits=(), overrides={"model.width": 8}),
    ]
    loop, _, trials = run(tmp_path, proposals)
    kept = [trial for trial in trials if trial.verdict.decision == "kept"]
    first = next(trial for trial in kept if trial.verdict.compared_with == 0)
    beside = [trial for trial in trials[1:] if trial.verdict.compared_with == 0]
    # nobody who was compared with the reference was better than the one that was kept
    assert first.verdict.delta == min(trial.verdict.delta for trial in beside)
    others = [trial for trial in trials[1:] if trial.verdict.compared_with == first.number]
    assert others, "one of the others was better than the reference, too"
    for trial in others:
        assert trial.overrides == {**first.overrides, **trial.proposal.overrides}
        assert trial.charges.runs == 2
        on_top = loop.folder / f"{trial.number:04d}" / f"on-{first.number:04d}" / "seed0-fold0" / "run"
        config = json.loads((on_top / "config.yaml").read_text())
        for key, value in trial.overrides.items():
            section, name = key.split(".")
            assert config[section][name] == value
    git = Git(tmp_path / "repository" / ".git")
    assert len(git("log", "--format=%s", "main..lab/toy").splitlines()) == len(kept)
    assert loop.ledger.best().commit == git("rev-parse", "lab/toy")


def test_what_sets_every_knob_is_not_run_again_for_another_recipe(tmp_path):
    whole = [Proposal(values, base="reference") for values in (BETTER, BEST)]
    _, _, trials = run(tmp_path, whole)
    assert [trial.charges.runs for trial in trials] == [1, 1, 1]
    kept = [trial for trial in trials if trial.verdict.decision == "kept"]
    assert len(kept) == 1
    other = next(trial for trial in trials[1:] if trial is not kept[0])
    assert other.verdict.compared_with == kept[0].number
    assert other.verdict.delta == pytest.approx(other.outcome.score - kept[0].outcome.score)


def test_an_edit_that_no_longer_applies_is_reverted_with_that_reason(tmp_path):
    both = [
        Proposal(BEST, edits=(Edit("src/toy/model.py", "np.tanh", new),)) for new in ("np.arctan", "np.sin")
    ]
    _, _, trials = run(tmp_path, both)
    decisions = [trial.verdict.decision for trial in trials[1:]]
    assert sorted(decisions) == ["kept", "reverted"]
    lost = trials[1 + decisions.index("reverted")]
    assert "on top of that: src/toy/model.py: old does not occur" in lost.verdict.reason
    assert lost.outcome.status == "completed"


def test_all_trials_of_a_batch_are_in_the_ledger_before_one_runs(tmp_path):
    seen = []

    class Watch:
        def trial_started(self, trial): ...

        def started(self, ledger):
            self.ledger = ledger

        def progress(self, number, phase):
            seen.append([trial.outcome is None for trial in self.ledger.trials()])

        def trial_finished(self, trial, ledger): ...

        def ended(self, ledger): ...

    run(tmp_path, [Proposal(BETTER), Proposal(BEST), Proposal({"model.width": 16})], observers=[Watch()])
    assert seen[0] == [True]
    assert len(seen[1]) == 4


def test_no_more_trials_than_the_budget_has(tmp_path):
    with toy_loop(tmp_path, None, workers=3, trials=4, folds=(0,)) as loop:
        assert loop.run() == "all 4 trials are used"
        assert len(loop.ledger.trials()) == 5


def test_two_of_a_batch_that_are_the_same_are_a_trial_and_a_duplicate(tmp_path):
    _, _, trials = run(tmp_path, [Proposal(BETTER), Proposal(BETTER), Proposal({"optimizer.lr": "fast"})])
    assert [trial.outcome.status for trial in trials[1:]] == ["completed", "duplicate", "rejected"]
    assert trials[2].charges.runs == 0


def test_the_recipe_is_measured_once_for_all_that_need_it(tmp_path):
    rule = {
        "name": "paired", "floor_seeds": 1, "hopeless_below": None, "keep_above": 0.9999999,
        "revert_below": 1e-9, "keep_at_limit": 0.99999, "max_reruns": 1,
    }  # fmt: skip
    near = [Proposal({"optimizer.steps": steps}) for steps in (42, 44, 46)]
    _, _, trials = run(tmp_path, near, acceptance=rule)
    assert all(trial.verdict.reruns == 1 for trial in trials[1:])
    # the reference once more, and each candidate twice
    assert sum(trial.charges.runs for trial in trials[1:]) == 7


def test_stopping_ends_all_that_run_and_charges_them(tmp_path):
    loops = []

    class Stop:
        def __init__(self):
            self.running = 0

        def trial_started(self, trial):
            self.running += trial.number > 0
            if self.running == 3:
                threading.Timer(0.5, loops[0].stop.set).start()

        def started(self, ledger): ...

        def progress(self, number, phase): ...

        def trial_finished(self, trial, ledger): ...

        def ended(self, ledger): ...

    hang = [{"overrides": {"fault.kind": "hang", "fault.megabytes": n}} for n in (1, 2, 3)]
    with toy_loop(tmp_path, hang, workers=3, folds=(0,), observers=[Stop()], sandbox=Bubblewrap()) as loop:
        loops.append(loop)
        assert loop.run() == "stopped"
        accounts(loop.ledger)
    trials = Ledger.open(f"sqlite:///{tmp_path}/ledger.db").study("toy").trials()
    assert [trial.outcome.status for trial in trials[1:]] == ["interrupted"] * 3
    assert all(trial.charges.seconds > 0 for trial in trials)
    assert not list((loop.folder / "seats").glob("*"))


def test_workers_share_the_cores_and_have_a_card_each(monkeypatch, tmp_path):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr("agent.sandbox.none.gpu_devices", lambda: {"/dev/nvidia0": 0, "/dev/nvidia3": 3})
    with toy_loop(tmp_path, []) as loop:
        alone = replace(loop.experiment.runner, sandbox=Unsandboxed())
    runners = Local(2).runners(alone, None)
    assert [runner.environment["OMP_NUM_THREADS"] for runner in runners] == ["4", "4"]
    assert [runner.sandbox._chosen["CUDA_VISIBLE_DEVICES"] for runner in runners] == ["0", "3"]
    assert len(Local(4, per_gpu=2).runners(alone, None)) == 4
    with pytest.raises(ExecutorError, match=r"executor.per_gpu=2"):
        Local(3).runners(alone, None)
    for key in ("workers", "threads", "per_gpu"):
        with pytest.raises(ExecutorError, match=rf"executor\.{key}=0: expected a whole number of at least 1"):
            Local(**{key: 0})


def test_two_machines_work_on_one_ledger_and_one_takes_over_from_the_other(tmp_path, postgres_url):
    """Two studies of one campaign at once, each in its own repository; then one's machine dies and comes back."""

    def study(name: str) -> None:
        with toy_loop(
            tmp_path / name, [{"overrides": BETTER}], name=name, url=postgres_url, folds=(0,)
        ) as loop:
            loop.run()

    threads = [threading.Thread(target=study, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ledger = Ledger.open(postgres_url)
    assert sorted(ledger.studies()) == ["a", "b"]
    assert all(len(ledger.study(name).trials()) == 2 for name in "ab")

    dead, far = ledger.study("a"), "elsewhere@00000000:17:1.00"
    dead.claim(far)
    again = dead.start(Proposal(BEST, route="queue", params={"@line": 2}), owner=far)
    dead.note(again, charges=Charges(40.0, runs=1), phase="seed 0, fold 1 of 3")
    more = [{"overrides": BETTER}, {"overrides": BEST}]
    with toy_loop(tmp_path / "a", more, name="a", url=postgres_url, folds=(0,)) as loop:
        with pytest.raises(LedgerError, match=f"held by {far}"):
            loop.run()
        assert dead.trials()[again].outcome is None
        dead.heartbeat(far, lease_seconds=-1.0)  # and then its power fails
        loop.run()
        accounts(loop.ledger)
        trials = loop.ledger.trials()
    assert trials[again].outcome.status == "interrupted"
    assert trials[again].charges.seconds > 40.0
    assert trials[again].charges.runs == 1
    with pytest.raises(LedgerError, match="ended and stays as it is"):
        dead.note(again, phase="back from the dead")
