"""A study on a Ray cluster of three simulated nodes: one of them dies under its run, and nothing is lost."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from agent.executors import shipping
from agent.executors.base import ExecutorError
from agent.executors.cluster import Ray
from agent.sandbox import Bubblewrap, SandboxUnavailable
from tests.agent.study import accounts, toy_loop

ray = pytest.importorskip("ray", reason="Ray is not installed (pip install 'kento[ray]')")


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    # of the nodes' own processes; they also are to miss a dead node soon
    own = {
        "PYTHONPATH": f"{Path.cwd()}:{Path.cwd() / 'src'}:{os.environ.get('PYTHONPATH', '')}",
        "RAY_health_check_period_ms": "300",
        "RAY_health_check_failure_threshold": "3",
    }
    patch = pytest.MonkeyPatch()
    for name, value in own.items():
        patch.setenv(name, value)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.nodes = [cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)]
    yield cluster
    ray.shutdown()
    cluster.shutdown()
    patch.undo()


class KillNode:
    """Kills the node, without warning, a moment after the last of three trials has begun to run."""

    def __init__(self, kill):
        self.kill, self.began = kill, 0

    def trial_started(self, trial):
        self.began += trial.number > 0
        if self.began == 3:
            threading.Thread(target=self.kill).start()

    def started(self, ledger): ...

    def progress(self, number, phase): ...

    def trial_finished(self, trial, ledger): ...

    def ended(self, ledger): ...


def slow(n):
    return {"overrides": {"fault.kind": "hang", "fault.seconds": 2.0, "optimizer.steps": 50 + n}}


def test_a_node_that_dies_under_its_run_loses_nothing(tmp_path, cluster):
    ran: list[str] = []

    def kill():
        """The node goes once a run is under way on it."""
        victim = cluster.nodes[0]
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if len(list((tmp_path / "cache" / "runs").glob("*"))) >= 3:
                break
            time.sleep(0.05)
        ran.extend(path.name for path in (tmp_path / "cache" / "runs").glob("*"))
        cluster.remove_node(victim, allow_graceful=False)

    executor = Ray(3, address=cluster.address, threads=1, cache=str(tmp_path / "cache"))
    options = {"sandbox": Bubblewrap(), "folds": (0,), "executor": executor}
    with toy_loop(tmp_path, [slow(n) for n in range(3)], observers=[KillNode(kill)], **options) as loop:
        loop.run()
        accounts(loop.ledger)
        trials = loop.ledger.trials()
        assert sum(node["Alive"] for node in ray.nodes()) == 2
    assert len(ran) == 3, "three runs at a time"
    assert [trial.outcome.status for trial in trials] == ["completed"] * 4
    # only the last attempt is charged: what a lost machine did is no trial's fault
    assert all(trial.charges.seconds < 8 for trial in trials)
    assert all(trial.charges.runs == 1 for trial in trials)
    sent = [path.name for path in (tmp_path / "cache" / "files").iterdir() if path.suffix == ""]
    assert len(sent) == 1, "one sealed fold, once"


def test_a_run_elsewhere_scores_as_one_here_and_can_be_stopped(tmp_path, cluster):
    executor = Ray(2, address=cluster.address, threads=1, cache=str(tmp_path / "cache"))
    values = {"optimizer.lr": 0.2, "optimizer.steps": 60}
    edit = {"path": "src/toy/model.py", "old": "np.tanh", "new": "np.sin"}
    proposals = [{"overrides": values}, {"edits": [edit]}, {"overrides": {"fault.kind": "crash"}}]
    scores = []
    for where in (executor, None):
        options = {"sandbox": Bubblewrap(), "folds": (0,), "executor": where, "workers": 2}
        with toy_loop(tmp_path / str(where is None), proposals, **options) as loop:
            loop.run()
            trials = loop.ledger.trials()
            scores.append([m.score for trial in trials for m in trial.outcome.measurements])
            assert len(scores[-1]) == 3
            assert "told to crash" in trials[3].outcome.reason
            assert "told to crash" in (loop.folder / "0003" / "seed0-fold0" / "log.txt").read_text()
    assert scores[0] == scores[1]
    hang = [{"overrides": {"fault.kind": "hang"}}]
    options = {"sandbox": Bubblewrap(), "executor": executor, "folds": (0,)}
    with toy_loop(tmp_path / "stopped", hang, **options) as loop:
        began = time.monotonic()
        threading.Timer(4.0, loop.stop.set).start()
        assert loop.run() == "stopped"
        accounts(loop.ledger)
    assert time.monotonic() - began < 30


def test_what_cannot_run_is_refused_with_the_reason(tmp_path, cluster, monkeypatch):
    options = {"sandbox": Bubblewrap(), "folds": (0,)}
    greedy = Ray(2, address=cluster.address, threads=64)
    refused = pytest.raises(ExecutorError, match=r"executor.threads=64.*no node")
    with refused, toy_loop(tmp_path, [], executor=greedy, **options):
        pass
    monkeypatch.setattr("agent.executors.cluster.lab_code", lambda: "another")
    other = Ray(2, address=cluster.address, threads=1, cache=str(tmp_path / "cache"))
    refused = pytest.raises(SandboxUnavailable, match=r"node .*another version of the lab")
    with toy_loop(tmp_path / "other", [], executor=other, **options) as loop, refused:
        loop.run()


def test_what_arrives_is_what_was_sent(tmp_path):
    (tmp_path / "code" / "src").mkdir(parents=True)
    (tmp_path / "code" / "src" / "a.py").write_text("1\n")
    (tmp_path / "code" / ".git").write_text("gitdir: nowhere")
    tree, data = shipping.bundle(tmp_path / "code")
    parcel = shipping.Parcel("bundle", tree, {"bundle": data})
    arrived = shipping.cached(tmp_path / "cache", parcel, lambda part: part)
    assert (arrived / "src" / "a.py").read_text() == "1\n"
    assert shipping.bundle(tmp_path / "code")[0] == tree
    (tmp_path / "code" / "src" / "a.py").write_text("2\n")
    assert shipping.bundle(tmp_path / "code")[0] != tree
    wrong = shipping.Parcel("bundle", "0" * 40, {"bundle": data})
    with pytest.raises(shipping.ShippingError, match="arrived as"):
        shipping.cached(tmp_path / "cache", wrong, lambda part: part)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x").write_bytes(b"abc")
    right = shipping.Parcel("files", shipping.digest(tmp_path / "data"), {"x": b"abc"})
    assert (shipping.cached(tmp_path / "cache", right, lambda part: part) / "x").read_bytes() == b"abc"
    spoilt = shipping.Parcel("files", "0" * 40, {"x": b"abd"})
    with pytest.raises(shipping.ShippingError, match="arrived as"):
        shipping.cached(tmp_path / "cache", spoilt, lambda part: part)
    left = [path.name for path in (tmp_path / "cache" / "files").iterdir() if path.is_dir()]
    assert left == [right.digest]
