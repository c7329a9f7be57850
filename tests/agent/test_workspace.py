"""The workspace: exact edits, a commit a kept trial, nothing left otherwise, the checkout as it was."""

import hashlib
import multiprocessing
import os
import random
import stat
import subprocess
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from agent.composition import composed, leaves
from agent.edits import EditError
from agent.git import Git, GitError, admin_dir
from agent.recipe_file import recipe_text
from agent.records import Charges, Edit, Measurement, Outcome, Proposal, Trial, Verdict
from agent.research_log import changes, commit_message
from agent.workspace import Workspace, WorkspaceError
from tests.fake_task.fixture import toy_repository, toy_task

MODEL = "src/toy/model.py"
EDIT = Edit(MODEL, "self.weight = 0.1 *", "self.weight = 0.2 *")


@pytest.fixture
def repo(tmp_path):
    return toy_repository(tmp_path / "repo")


@pytest.fixture
def workspace(repo):
    with Workspace.create(toy_task(repo), "alpha", repo / "runs") as made:
        yield made


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """One workspace for tests that must leave it clean."""
    repo = toy_repository(tmp_path_factory.mktemp("shared") / "repo")
    with Workspace.create(toy_task(repo), "alpha", repo / "runs") as made:
        yield made


def git(repo, *arguments):
    done = subprocess.run(["git", *arguments], cwd=repo, capture_output=True, text=True, check=True)
    return done.stdout


def user_state(repo):
    """Everything that is the user's: files, index, HEAD, refs, stash, configuration."""
    skip = {repo / "runs", repo / ".git"}
    files = {
        str(path.relative_to(repo)): path.read_bytes()
        for path in sorted(repo.rglob("*"))
        if path.is_file() and not any(folder in path.parents for folder in skip)
    }
    own = ("HEAD", "index", "config", "logs/HEAD", "logs/refs/stash")
    inside = {name: (repo / ".git" / name).read_bytes() for name in own if (repo / ".git" / name).exists()}
    refs = [line for line in git(repo, "for-each-ref").splitlines() if "refs/heads/lab/" not in line]
    return files, inside, refs


def dirty(repo):
    """A checkout as people have them: staged, unstaged, untracked, stashed, another branch."""
    git(repo, "config", "user.name", "someone")
    git(repo, "config", "user.email", "someone@example.invalid")
    git(repo, "branch", "other")
    (repo / MODEL).write_text((repo / MODEL).read_text() + "\n# stashed\n")
    git(repo, "stash")
    (repo / "train.py").write_text("# staged\n")
    git(repo, "add", "train.py")
    (repo / MODEL).write_text((repo / MODEL).read_text() + "\n# unstaged\n")
    (repo / "notes.txt").write_text("untracked\n")


def tree_of(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".git"
    }


def is_exactly_its_head(workspace):
    inside = workspace._git()
    return inside("status", "--porcelain", "--ignored", "--untracked-files=all") == ""


def test_a_kept_trial_is_one_commit_and_a_reverted_one_nothing(repo, workspace):
    base = workspace.head()
    before = tree_of(workspace.path)
    reference = workspace.code_hash()
    workspace.apply([EDIT])
    assert "0.2 *" in (workspace.path / MODEL).read_text()
    assert workspace.code_hash() != reference
    assert "+        self.weight = 0.2 *" in workspace.diff()
    workspace.revert()
    assert tree_of(workspace.path) == before
    assert (workspace.head(), workspace.code_hash()) == (base, reference)

    workspace.apply([EDIT])
    kept = workspace.commit("trial 1: 9.5\n\nLab-Study: alpha\nLab-Trial: 1\n", {"optimizer.lr": 0.1})
    assert workspace.head() == kept != base
    assert git(repo, "log", "--format=%s", "lab/alpha").splitlines() == ["trial 1: 9.5", "The toy"]
    assert git(repo, "show", "--name-only", "--format=", kept).split() == ["configs/recipe/lab.yaml", MODEL]
    assert "0.2 *" in (workspace.path / MODEL).read_text()
    assert is_exactly_its_head(workspace)


def test_revert_removes_whatever_lies_about(workspace):
    (workspace.path / "src" / "toy" / "__pycache__").mkdir()
    (workspace.path / "src" / "toy" / "__pycache__" / "x.pyc").write_bytes(b"x")
    (workspace.path / "new.py").write_text("x")
    (workspace.path / MODEL).unlink()
    (workspace.path / "train.py").chmod(0o755)
    nested = workspace.path / "nested"
    subprocess.run(["git", "init", "-q", str(nested)], check=True)
    assert not is_exactly_its_head(workspace)
    workspace.revert()
    assert is_exactly_its_head(workspace)
    assert not nested.exists()
    assert (workspace.path / MODEL).exists()


def test_a_tag_of_the_branchs_name_changes_nothing(repo, workspace):
    """`git tag lab/alpha`, as a bookmark: git takes a tag before a branch."""
    workspace.apply([EDIT])
    kept = workspace.commit("kept", {})
    git(repo, "tag", "lab/alpha", "main")
    workspace.revert()
    assert workspace.head() == kept
    assert "0.2 *" in (workspace.path / MODEL).read_text()


def test_a_killed_study_goes_on_in_a_checkout_that_was_moved(repo):
    made = Workspace.create(toy_task(repo), "alpha", repo / "runs")
    made.close()  # as a kill leaves it: the worktree stays
    moved = repo.rename(repo.with_name("moved"))
    with Workspace.open(toy_task(moved), "alpha", moved / "runs") as workspace:
        workspace.apply([EDIT])
        assert workspace.commit("kept", {}) == workspace.head()


def test_several_edits_apply_in_order_and_all_or_none(workspace):
    first = Edit(MODEL, "0.1 *", "0.3 *")
    workspace.apply([first, Edit(MODEL, "0.3 *", "0.4 *")])
    assert "0.4 *" in (workspace.path / MODEL).read_text()
    workspace.revert()
    with pytest.raises(EditError, match="does not occur"):
        workspace.apply([first, Edit(MODEL, "no such text", "x")])
    assert is_exactly_its_head(workspace)


def test_edits_keep_line_endings_and_missing_last_newlines(repo):
    (repo / MODEL).write_bytes(b"a = 1\r\nb = 2\r\nc = 3")
    Git(repo / ".git", repo, repo / ".git")("commit", "-qam", "Carriage returns")
    with Workspace.create(toy_task(repo), "crlf", repo / "runs") as workspace:
        workspace.apply([Edit(MODEL, "b = 2", "b = 4")])
        assert (workspace.path / MODEL).read_bytes() == b"a = 1\r\nb = 4\r\nc = 3"


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (Edit("../repo/train.py", "a", "b"), "relative path of plain names"),
        (Edit("src/toy/../toy/model.py", "a", "b"), "relative path of plain names"),
        (Edit("/etc/passwd", "a", "b"), "relative path of plain names"),
        (Edit("", "a", "b"), "relative path of plain names"),
        (Edit("src/toy/model.py/", "a", "b"), "relative path of plain names"),
        (Edit("src//toy/model.py", "a", "b"), "relative path of plain names"),
        (Edit("src\\toy\\model.py", "a", "b"), "relative path of plain names"),
        (Edit("src/toy/model.py\0.txt", "a", "b"), "relative path of plain names"),
        (Edit("src/toy/m\u043edel.py", "a", "b"), "relative path of plain names"),
        (Edit(".git", "a", "b"), "relative path of plain names"),
        (Edit(".git/config", "a", "b"), "relative path of plain names"),
        (Edit(".gitattributes", "a", "b"), "relative path of plain names"),
        (Edit("src/toy/.gitmodules", "a", "b"), "relative path of plain names"),
        (Edit("train.py", "import", "b"), "train.py' is not editable; editable are src/toy/"),
        (Edit("src/toy/data.py", "a", "b"), "is not editable"),
        (Edit("configs/train.yaml", "seed: 0", "seed: 1"), "is not editable"),
        (Edit("configs/recipe/lab.yaml", "a", "b"), "is not editable"),
        (Edit("src/toy/new.py", "a", "b"), "no such file, or a link"),
        (Edit(MODEL, "", "b"), "old is empty"),
        (Edit(MODEL, "self.", "b"), "occurs more than once"),
        (Edit(MODEL, "absent", "b"), "does not occur"),
        (Edit(MODEL, "0.1", "0.1"), "old and new are the same"),
        (Edit(MODEL, "0.1", "0.\x002"), "control or invisible character"),
        (Edit(MODEL, "0.1", "0.2 # \u202e"), "control or invisible character"),
        (Edit(MODEL, "0.1", "0.2 # \x1b[2J"), "control or invisible character"),
        (Edit(MODEL, "0.1", "\ud800"), "not valid Unicode"),
        (Edit(MODEL, "0.1", "x" * 20_000), "at most 16384 in a proposal"),
        (Edit(MODEL, 3, "x"), "must be text"),
    ],
    ids=lambda value: ascii(value)[:60],
)
def test_refused_edits(clean, edit, reason):
    with pytest.raises(EditError, match=reason):
        clean.apply([edit])
    assert is_exactly_its_head(clean)


def test_refused_together(workspace):
    with pytest.raises(EditError, match="11 edits; at most 10"):
        workspace.apply([EDIT] * 11)
    with pytest.raises(EditError, match="together change nothing"):
        workspace.apply([Edit(MODEL, "0.1 *", "0.5 *"), Edit(MODEL, "0.5 *", "0.1 *")])
    small = replace(workspace.task.editable, most_file_bytes=2400)
    workspace.task = replace(workspace.task, editable=small)
    with pytest.raises(EditError, match="would exceed 2400 bytes"):
        workspace.apply([Edit(MODEL, "0.1 *", "0.1 * " + "1 * " * 500)])


def test_overlapping_occurrences_are_ambiguous(workspace):
    (workspace.path / MODEL).write_text("x = 'aaa'\n")
    with pytest.raises(EditError, match="more than once"):
        workspace.apply([Edit(MODEL, "aa", "b")])


def test_links_are_refused(workspace, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "model.py").write_text("secret = 1\n")
    (workspace.path / MODEL).unlink()
    (workspace.path / MODEL).symlink_to(outside / "model.py")
    with pytest.raises(EditError, match="or a link"):
        workspace.apply([Edit(MODEL, "secret", "public")])
    (workspace.path / MODEL).unlink()
    os.link(outside / "model.py", workspace.path / MODEL)
    with pytest.raises(EditError, match="not a regular file of its own"):
        workspace.apply([Edit(MODEL, "secret", "public")])
    workspace.revert()
    (workspace.path / "src" / "toy").rename(workspace.path / "src" / "was")
    (workspace.path / "src" / "toy").symlink_to(outside)
    with pytest.raises(EditError, match="or a link"):
        workspace.apply([Edit(MODEL, "secret", "public")])
    assert (outside / "model.py").read_text() == "secret = 1\n"


def test_recipe_file_reproduces_the_recipe(workspace):
    overrides = {
        "optimizer.lr": 1e-05,
        "model.activation": "relu",
        "optimizer.steps": 40,
        "fault.kind": "null",
    }
    workspace.commit("trial 1\n", overrides)
    task = workspace.task
    plain = tuple(f"{key}={value!r}" for key, value in overrides.items())
    assert leaves(composed(task, [task.recipe.select])) == leaves(composed(task, plain))
    first = (workspace.path / task.recipe.file).read_text().splitlines()
    assert first[0] == "# @package _global_"
    assert first[1].endswith("python train.py experiment=baseline recipe=lab")


@pytest.mark.parametrize(
    "value", ["1e5", "1e-05", "true", "~", "", "0x10", "1_000", "a: b", "12:30:45", "@x", None]
)
def test_recipe_file_keeps_types(clean, value):
    text = recipe_text(clean.task, {"fault.kind": value})
    assert OmegaConf.create(text).fault.kind == value


def test_recipe_with_a_group_and_with_nothing(workspace):
    task = replace(workspace.task, groups={"model": ("features", "wide")})
    workspace.task = task
    workspace.commit("trial 1\n", {"model": "wide", "optimizer.lr": 0.5})
    found = leaves(composed(task, ["recipe=lab"]))
    assert (found["model.width"], found["optimizer.lr"]) == (128, 0.5)
    workspace.commit("trial 2\n", {})
    assert leaves(composed(task, ["recipe=lab"])) == leaves(composed(task))
    assert recipe_text(task, {}).startswith("# @package _global_")


def test_the_user_keeps_everything(repo, monkeypatch):
    dirty(repo)
    git(repo, "config", "commit.gpgSign", "true")
    git(repo, "config", "core.autocrlf", "true")
    git(repo, "config", "branch.autoSetupMerge", "always")
    marker = repo / "runs" / "hook-ran"
    for name in ("post-checkout", "pre-commit", "post-commit", "reference-transaction", "post-index-change"):
        hook = repo / ".git" / "hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\ntouch {marker}\n")
        hook.chmod(hook.stat().st_mode | stat.S_IXUSR)
    before = user_state(repo)
    with monkeypatch.context() as patched:
        patched.setenv("GIT_DIR", "/nonexistent")
        patched.setenv("GIT_INDEX_FILE", str(repo / ".git" / "index"))
        patched.setenv("GIT_AUTHOR_NAME", "nobody")
        with Workspace.create(toy_task(repo), "alpha", repo / "runs") as workspace:
            workspace.apply([EDIT])
            workspace.commit("trial 1\n", {"optimizer.lr": 0.1})
            workspace.apply([Edit(MODEL, "0.2 *", "0.3 *")])
            workspace.revert()
            assert b"\r" not in (workspace.path / MODEL).read_bytes()
    assert not marker.exists()
    assert user_state(repo) == before
    assert (
        git(repo, "log", "-1", "--format=%an <%ae>", "lab/alpha").strip() == "kento lab <lab@kento.invalid>"
    )
    # the study began at the commit, not at the dirty files
    assert "unstaged" not in git(repo, "show", f"lab/alpha:{MODEL}")


def test_create_and_open_say_what_is_wrong(repo):
    task = toy_task(repo)
    with pytest.raises(WorkspaceError, match="no branch lab/alpha"):
        Workspace.open(task, "alpha", repo / "runs")
    assert not Workspace.exists(task, "alpha")
    Workspace.create(task, "alpha", repo / "runs").close()
    assert Workspace.exists(task, "alpha")
    with pytest.raises(WorkspaceError, match="branch lab/alpha exists: resume"):
        Workspace.create(task, "alpha", repo / "runs")
    with pytest.raises(GitError, match="rev-parse"):
        Workspace.create(task, "beta", repo / "runs", base="no-such-commit")
    (repo / "runs" / "gamma" / "workspace").mkdir(parents=True)
    (repo / "runs" / "gamma" / "workspace" / "thesis.txt").write_text("mine")
    with pytest.raises(WorkspaceError, match="no worktree; move it away"):
        Workspace.create(task, "gamma", repo / "runs")
    assert (repo / "runs" / "gamma" / "workspace" / "thesis.txt").read_text() == "mine"
    for name in ("", "..", "a\n", "a b", "-x", "a/b", "a..b", "a.lock", "x" * 81):
        with pytest.raises(WorkspaceError, match="expected a short name"):
            Workspace.create(task, name, repo / "runs")
    with pytest.raises(GitError, match="not a git repository"):
        Workspace.create(toy_task(repo.parent), "alpha", repo.parent / "elsewhere")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a repository to someone else")
def test_a_repository_of_another_user(repo):
    subprocess.run(["chown", "-R", "65534:65534", str(repo)], check=True)
    with Workspace.create(toy_task(repo), "alpha", repo / "runs") as workspace:
        workspace.apply([EDIT])
        assert workspace.commit("trial 1\n", {}) == workspace.head()


def test_one_process_at_a_time(repo, workspace, monkeypatch):
    monkeypatch.setattr("agent.workspace.LOCK_SECONDS", 0.05)
    with pytest.raises(WorkspaceError, match="in use by another process"):
        Workspace.open(toy_task(repo), "alpha", repo / "runs")
    workspace.close()
    Workspace.open(toy_task(repo), "alpha", repo / "runs").close()


def test_the_branch_is_its_users_when_the_study_is_closed(repo):
    """A person checks out the branch; the study does not go on under their feet, and says where."""
    with Workspace.create(toy_task(repo), "alpha", repo / "runs") as workspace:
        workspace.apply([EDIT])
        kept = workspace.commit("trial 1\n", {})
        with pytest.raises(subprocess.CalledProcessError):
            git(repo, "checkout", "--quiet", "lab/alpha")
    assert not workspace.path.exists()
    git(repo, "checkout", "--quiet", "lab/alpha")
    assert "0.2 *" in (repo / MODEL).read_text()
    with pytest.raises(WorkspaceError, match=f"lab/alpha is checked out in {repo}"):
        Workspace.open(toy_task(repo), "alpha", repo / "runs")
    git(repo, "checkout", "--quiet", "-")
    with Workspace.open(toy_task(repo), "alpha", repo / "runs") as workspace:
        assert workspace.head() == kept
        assert is_exactly_its_head(workspace)


def wait_in_git(repo):
    with Workspace.open(toy_task(repo), "alpha", repo / "runs") as workspace:
        (repo / "runs" / "waiting").touch()
        workspace._git()("-c", "alias.wait=!sleep 1", "wait")


def test_a_killed_studys_last_git_command_ends_first(repo, monkeypatch):
    """Git outlives the process that was killed; the next one must not find it at work."""
    Workspace.create(toy_task(repo), "alpha", repo / "runs").close()
    process = multiprocessing.get_context("fork").Process(target=wait_in_git, args=(repo,))
    process.start()
    while not (repo / "runs" / "waiting").exists():
        time.sleep(0.01)
    time.sleep(0.1)
    process.kill()
    process.join()
    monkeypatch.setattr("agent.workspace.LOCK_SECONDS", 0.05)
    with pytest.raises(WorkspaceError, match="in use by another process"):
        Workspace.open(toy_task(repo), "alpha", repo / "runs")
    monkeypatch.setattr("agent.workspace.LOCK_SECONDS", 10.0)
    Workspace.open(toy_task(repo), "alpha", repo / "runs").close()


def test_create_at_an_earlier_commit_from_a_worktree_of_the_users(repo):
    first = git(repo, "rev-parse", "HEAD").strip()
    Git(repo / ".git", repo, repo / ".git")("commit", "-q", "--allow-empty", "-m", "Later")
    other = repo.parent / "other"
    git(repo, "worktree", "add", "-q", str(other))
    with Workspace.create(toy_task(other), "alpha", other / "runs", base=first) as workspace:
        assert workspace.head() == first
    assert git(other, "status", "--porcelain") == ""


def test_it_begins_with_what_is_checked_out_where_the_person_stands(repo):
    other = repo.parent / "other"
    git(repo, "worktree", "add", "-q", str(other))
    (other / MODEL).write_text("# of the worktree\n")
    Git(repo / ".git", other, admin_dir(repo / ".git", other))("commit", "-q", "-a", "-m", "Theirs")
    with Workspace.create(toy_task(other), "alpha", other / "runs"):
        assert git(repo, "show", f"lab/alpha:{MODEL}") == "# of the worktree\n"
    with Workspace.create(toy_task(repo), "beta", repo / "runs"):
        assert git(repo, "show", f"lab/beta:{MODEL}") != "# of the worktree\n"


@pytest.mark.parametrize("damage", ["index", "gitfile", "gone", "admin", "locks", "head", "detached"])
def test_open_repairs(repo, damage):
    task = toy_task(repo)
    workspace = Workspace.create(task, "alpha", repo / "runs")
    workspace.apply([EDIT])
    kept = workspace.commit("trial 1\n", {"optimizer.lr": 0.1})
    workspace.apply([Edit(MODEL, "0.2 *", "0.3 *")])
    path, admin = workspace.path, workspace._admin()
    workspace.close()  # as a killed process leaves it
    if damage == "index":
        (admin / "index").write_bytes(b"DIRCgarbage")
    elif damage == "gitfile":
        (path / ".git").write_text("gitdir: /nonexistent\n")
    elif damage == "gone":
        subprocess.run(["rm", "-rf", str(path)], check=True)
    elif damage == "admin":
        subprocess.run(["rm", "-rf", str(admin)], check=True)
    elif damage == "locks":
        for lock in (admin / "index.lock", admin / "HEAD.lock", repo / ".git/refs/heads/lab/alpha.lock"):
            lock.write_text("")
    elif damage == "head":
        (admin / "HEAD").write_text("")
    else:
        (admin / "HEAD").write_text(kept + "\n")
    before = user_state(repo)
    with Workspace.open(task, "alpha", repo / "runs") as workspace:
        assert workspace.head() == kept
        assert is_exactly_its_head(workspace)
        assert "0.2 *" in (path / MODEL).read_text()
        workspace.apply([Edit(MODEL, "0.2 *", "0.3 *")])
        workspace.commit("trial 2\n", {"optimizer.lr": 0.2})
    assert user_state(repo) == before
    assert git(repo, "log", "--format=%s", "lab/alpha").splitlines() == ["trial 2", "trial 1", "The toy"]


def keep_and_revert(repo):
    """A study that goes on until it is killed: every second trial is kept."""
    task = toy_task(repo)
    make = Workspace.open if Workspace.exists(task, "alpha") else Workspace.create
    with make(task, "alpha", repo / "runs") as workspace:
        number = len(workspace.log())
        while True:
            number += 1
            text = (workspace.path / MODEL).read_text()
            old = text[text.index("self.weight = ") :].splitlines()[0]
            workspace.apply(
                [Edit(MODEL, old, f"self.weight = {number} * random.normal(size=(width, outputs))")]
            )
            workspace.commit(
                f"trial {number}\n\nLab-Study: alpha\nLab-Trial: {number}\n", {"optimizer.steps": number}
            )
            workspace.apply([Edit(MODEL, "import math", "import math  # to be reverted")])
            workspace.revert()


def test_kill_at_any_moment(repo):
    """Kill -9 at random moments, creation included: the checkout stays, the branch is whole, work goes on."""
    dirty(repo)
    before = user_state(repo)
    random_moment = random.Random(0)
    kept = rounds = 0
    while rounds < 20 or (kept <= 5 and rounds < 200):  # a busy machine keeps less before it is killed
        rounds += 1
        process = multiprocessing.get_context("fork").Process(target=keep_and_revert, args=(repo,))
        process.start()
        time.sleep(random_moment.uniform(0.0, 0.25))
        process.kill()
        process.join()
        if not Workspace.exists(toy_task(repo), "alpha"):
            assert user_state(repo) == before
            continue
        with closing(Workspace.open(toy_task(repo), "alpha", repo / "runs")) as workspace:
            assert is_exactly_its_head(workspace)
            numbers = [int(entry["Lab-Trial"]) for entry in workspace.log()]
            assert numbers == list(range(len(numbers), 0, -1))
            assert len(numbers) >= kept
            kept = len(numbers)
            if kept:
                assert f"self.weight = {kept} *" in (workspace.path / MODEL).read_text()
                assert f"steps: {kept}" in (workspace.path / "configs/recipe/lab.yaml").read_text()
        assert user_state(repo) == before
    assert kept > 5
    git(repo, "fsck", "--strict", "--no-dangling")


def trial(number, score, overrides, edits=(), hypothesis=""):
    measurements = tuple(Measurement(0, fold, score + fold) for fold in range(3))
    proposal = Proposal(overrides, edits, hypothesis=hypothesis, searcher="queue", category="optimizer")
    verdict = Verdict("kept", 0.9731, -1.25, 0)
    outcome = Outcome("completed", score, measurements)
    return Trial(number, proposal, overrides, outcome, verdict, Charges(seconds=61.2))


def test_the_branch_reads_as_a_research_log(repo, workspace):
    before = trial(0, 12.0, {})
    lies = "more steps\n\nLab-Trial: 99\nLab-Study: beta\n\n\x1b[31m" + "because " * 30
    after = trial(7, 10.5, {"optimizer.steps": 60, "optimizer.lr": 0.02}, (EDIT,), hypothesis=lies)
    message = commit_message("alpha", after, before, {"optimizer.steps": 30, "optimizer.lr": 0.01})
    workspace.apply(after.proposal.edits)
    commit = workspace.commit(message, after.overrides)
    assert git(repo, "log", "-1", "--format=%s", "lab/alpha").strip() == (
        "trial 7: 10.5, optimizer.lr: 0.01 -> 0.02; optimizer.steps: 30 -> 60; edit src/toy/model.py"
    )
    shown = git(repo, "log", "-1", "--format=%b", "lab/alpha")
    for line in ("folds    10.5 11.5 12.5 (seed 0)", "P(gain)  0.973", "changed  optimizer.lr: 0.01 -> 0.02"):
        assert line in shown
    assert "\x1b" not in shown
    [entry] = workspace.log()
    assert entry["commit"] == commit
    assert (entry["Lab-Trial"], entry["Lab-Study"], entry["Lab-Probability"]) == ("7", "alpha", "0.9731")


def test_changes_compare_with_the_recipe_before():
    first, second = trial(1, 1.0, {"a": 1, "b": 2}), trial(2, 1.0, {"b": 3})
    assert changes(second, first, {"a": 5}) == ["a: 1 -> 5", "b: 2 -> 3"]


def test_paths_of_the_workspace(repo, workspace):
    assert workspace.path == repo / "runs" / "alpha" / "workspace"
    assert workspace.task.root == workspace.path
    assert workspace.editable_files() == ["src/toy/__init__.py", MODEL]
    assert Path(workspace.task.config_dir) == workspace.path / "configs"
