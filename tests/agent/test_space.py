"""Spaces and the checking of overrides: what passes is exactly what Hydra runs, everything else says why."""

import json
import random
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from agent.composition import composed, config_hash, leaves
from agent.recipe_file import recipe_text
from agent.searchers.base import active
from agent.space import Condition, Space, SpaceError
from agent.task import Task
from agent.validation import Rejected, quoted, validate
from tests.fake_task.fixture import HERE, toy_space, toy_task

ROOT = Path(__file__).resolve().parents[2]
TASK = toy_task()
SPACE = toy_space()


def test_space_of_the_toy():
    assert SPACE.distributions["optimizer.lr"] == optuna.distributions.FloatDistribution(1e-3, 1.0, log=True)
    assert SPACE.conditions == {"optimizer.floor": Condition("optimizer.schedule", "cosine")}
    assert SPACE.defaults["optimizer.steps"] == 30  # the reference's, not the program's 60
    assert set(SPACE.defaults) == set(SPACE.distributions)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("optimizer.lr: {type: float, low: 1}", "needs .*high"),
        (
            "optimizer.lr: {type: real, low: 1, high: 2}",
            "type='real'; expected one of float, int, categorical",
        ),
        ("optimizer.lr: {type: float, low: 2, high: 1}", "low <= high"),
        ("optimizer.lr: {type: float, low: 0.5, high: 1}", "reference's value is outside: 0.01 is not in"),
        ("optimizer.lrr: {type: float, low: 0, high: 1}", "optimizer.lrr is no key"),
        ("data.pairs: {type: int, low: 1, high: 1000}", "data.pairs is locked"),
        ("optimizer.lr: 3", "type=None"),
        ("model.activation: {type: categorical, choices: [relu]}", "outside: 'tanh' is not one of relu"),
        ("optimizer.lr: {type: float, low: 0, high: 1, when: {model.width: 3}}", "unconditional knob"),
        ("optimizer.lr: {type: float, low: 0, high: 1, when: 3}", "expected one `key: value`"),
        ("[]", "expected `key"),
    ],
)
def test_a_mistake_in_the_space_file_is_named(line, message):
    with pytest.raises(SpaceError, match=message):
        Space.from_mapping(yaml.safe_load(line), TASK)


REFUSED = [
    ({"optimizer.lrr": 1.0}, r"unknown key optimizer.lrr; did you mean optimizer.lr"),
    ({"lr": 1.0}, "unknown key lr; did you mean optimizer.lr"),
    ({"optimizer.lr": float("nan")}, "expected a finite number"),
    ({"optimizer.lr": float("inf")}, "expected a finite number"),
    ({"optimizer.lr": 10**400}, "too large"),
    ({"optimizer.lr": 3.0}, r"3 is not in \[0.001, 1\]"),
    ({"optimizer.lr": "0.1"}, "expected a number"),
    ({"optimizer.lr": True}, "expected a number"),
    ({"optimizer.lr": None}, "expected a number"),
    ({"optimizer.lr": [0.1, 0.2]}, "a list or mapping"),
    ({"optimizer.lr": {"a": 1}}, "a list or mapping"),
    ({"optimizer.lr": frozenset()}, "not a plain value"),
    ({"optimizer.steps": 30.5}, "not a whole number"),
    ({"optimizer.steps": 10**9}, "not in"),
    ({"optimizer": 1}, "optimizer is a section"),
    ({"data.pairs": 100}, "data.pairs is locked"),
    ({"data.folds": 1}, "data.folds is locked"),
    ({"seed": 3}, "seed is locked"),
    ({"run.dir": "/"}, "run.dir is locked"),
    ({"budget.seconds": 1e9}, "budget.seconds is locked"),
    ({"hydra.run.dir": "/"}, "hydra.run.dir is locked"),
    ({"model": "wide"}, "model is a section"),
    ({"experiment": "none"}, "unknown key experiment"),
    ({"+optimizer.x": 1}, "`\\+key` adds"),
    ({"++optimizer.lr": 1}, "`\\+key` adds"),
    ({"~optimizer.lr": 1}, "`~key` deletes"),
    ({"model@other": "wide"}, "`@` moves"),
    ({"optimizer.lr=3 optimizer.steps": 1}, "must not contain `=`"),
    ({"optimizer.lr ": 1}, "no white space"),
    ({"optimizer.lr\n": 1}, "no white space"),
    ({"": 1}, "expected dotted names"),
    ({"model/features": "x"}, "expected dotted names"),
    ({"optimizer..lr": 1}, "expected dotted names"),
    ({"optimizer[lr]": 1}, "no list or sweep syntax"),
    ({"${seed}": 1}, "no interpolation"),
    ({"optimizer.l\u0433": 1}, "expected dotted names"),  # a Cyrillic letter
    ({"optimizer.lr" * 20: 1}, "expected dotted names"),
    ({3: 1}, "key 3 must be text"),
    ({"model.activation": "${seed}"}, "interpolations are not allowed"),
    ({"model.activation": "${oc.env:HOME}"}, "interpolations are not allowed"),
    ({"model.activation": "tanh,relu"}, "sweep syntax"),
    ({"model.activation": "choice(tanh)"}, "sweep syntax"),
    ({"model.activation": "[tanh]"}, "list and mapping syntax"),
    ({"model.activation": "{a: b}"}, "list and mapping syntax"),
    ({"model.activation": "a'b"}, "plain letters"),
    ({"model.activation": "a\\b"}, "plain letters"),
    ({"model.activation": "t\u0430nh"}, "plain letters"),  # a Cyrillic letter
    ({"model.activation": "x" * 1000}, "200 plain letters"),
    ({"model.activation": "???"}, "plain letters"),
    ({"model.activation": "gelu"}, "'gelu' is not one of tanh, relu"),
    ({"model.activation": 3}, "expected text, like 'tanh'"),
]


@pytest.mark.parametrize(("overrides", "reason"), REFUSED, ids=lambda value: ascii(value)[:40])
def test_refused_with_a_reason(overrides, reason):
    with pytest.raises(Rejected, match=reason):
        validate(TASK, {}, overrides, SPACE)


def test_too_many_overrides_and_no_mapping():
    with pytest.raises(Rejected, match="at most 100"):
        validate(TASK, {}, {f"optimizer.a{i}": 1 for i in range(101)})
    with pytest.raises(Rejected, match="must be a mapping"):
        validate(TASK, {}, ["optimizer.lr=1"])


def test_the_tasks_own_check_has_the_last_word():
    with pytest.raises(Rejected, match=r"optimizer.steps=5000: expected a whole number in \[1, 2000\]"):
        validate(TASK, {}, {"optimizer.steps": 5000})
    with pytest.raises(Rejected, match=r"optimizer.steps=30\.5"):
        validate(TASK, {}, {"optimizer.steps": 30.5})


def test_without_a_space_its_ranges_do_not_bind():
    assert validate(TASK, {}, {"optimizer.lr": 3.0}).config["optimizer.lr"] == 3.0


def test_groups_where_the_task_allows_them():
    task = replace(TASK, groups={"model": ("features", "wide")})
    assert validate(task, {}, {"model": "wide", "optimizer.lr": 0.5}).config["model.width"] == 128
    with pytest.raises(Rejected, match="expected one of features, wide"):
        validate(task, {}, {"model": "huge"})


def test_proposal_lies_over_the_recipe():
    result = validate(TASK, {"optimizer.lr": 0.1, "model.width": 64}, {"optimizer.lr": 0.2}, SPACE)
    assert result.overrides == {"optimizer.lr": 0.2, "model.width": 64}
    assert result.config["model.width"] == 64
    assert result.arguments == ("experiment=baseline", "model.width=64", "optimizer.lr=0.2")


def test_identity():
    """The same experiment has one fingerprint, however it is written; code is part of it."""
    reference = validate(TASK, {}, {}, SPACE)
    assert validate(TASK, {}, {"optimizer.lr": 0.01}, SPACE).config_hash == reference.config_hash
    assert validate(TASK, {}, {"model.width": 48.0}, SPACE).config_hash == reference.config_hash
    other = validate(TASK, {}, {"optimizer.lr": 0.011}, SPACE)
    assert other.config_hash != reference.config_hash
    assert reference.fingerprint("a") == validate(TASK, {}, {}, SPACE).fingerprint("a")
    assert len({reference.fingerprint("a"), reference.fingerprint("b"), other.fingerprint("a")}) == 3


def test_what_the_runner_sets_is_no_part_of_the_identity():
    task = replace(TASK, arguments=(*TASK.arguments[1:], "seed=99"))
    assert validate(task, {}, {}).config_hash == validate(TASK, {}, {}).config_hash


@given(
    st.floats(1e-300, 1e300) | st.floats(1e-3, 1.0) | st.integers(-(2**53), 2**53),
    st.text("abcXYZ019_./:@ -", max_size=30),
)
@settings(max_examples=30, deadline=None)
def test_what_was_checked_is_what_hydra_parses(number, text):
    task = replace(TASK, check="builtins:repr")
    result = validate(task, {}, {"optimizer.lr": number, "fault.kind": text})
    assert result.config["optimizer.lr"] == number
    assert result.config["fault.kind"] == text
    assert result.config == leaves(composed(task, result.arguments))


@pytest.mark.parametrize("text", ["null", "true", "1", "1e5", "nan", "", " x ", "a:b", "-", "@", "x y"])
def test_text_stays_text(text):
    assert (
        validate(replace(TASK, check="builtins:repr"), {}, {"fault.kind": text}).config["fault.kind"] == text
    )


def test_a_real_run_sees_the_checked_values(tmp_path):
    result = validate(TASK, {}, {"optimizer.lr": 1.5e-3, "optimizer.steps": 11, "fault.kind": "null"}, SPACE)
    run = TASK.run_arguments(run_dir=tmp_path, seed=2, fold=1, seconds=5.0, sealed="null")
    open_run = [argument for argument in run if not argument.startswith(("evaluation", "data.sealed"))]
    command = [sys.executable, "train.py", *result.arguments, *open_run]
    subprocess.run(command, cwd=HERE, check=True, capture_output=True)
    seen = json.loads((tmp_path / "config.yaml").read_text())
    assert seen["optimizer"] == {
        "lr": 1.5e-3,
        "decay": 1e-3,
        "steps": 11,
        "schedule": "constant",
        "floor": 0.1,
    }
    assert seen["fault"]["kind"] == "null"
    assert seen["seed"] == 2
    assert seen["data"]["folds"] == [1]


def test_quoted():
    assert [quoted(value) for value in (None, True, False, 3, 1e-05, "x")] == [
        "null", "true", "false", "3", "1e-05", "'x'",
    ]  # fmt: skip


def test_composing_inside_a_hydra_program_leaves_its_state():
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        mine = GlobalHydra.instance().hydra
        assert leaves(composed(TASK))["optimizer.steps"] == 30
        assert GlobalHydra.instance().hydra is mine
        assert "expert" in compose("train")
    assert leaves(composed(TASK))["optimizer.steps"] == 30


@pytest.fixture
def eager_threads():
    """Threads that take turns every microsecond."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_composing_two_tasks_from_threads(eager_threads):
    eclip = Task.load(ROOT / "configs" / "task" / "eclip.yaml", ROOT)
    barrier = threading.Barrier(4)

    def one(task, key, value):
        barrier.wait()
        return [leaves(composed(task, [f"{key}={value}"]))[key] for _ in range(3)]

    tasks = (TASK, eclip, TASK, eclip)
    keys = ("model.width", "trainer.batch_size") * 2
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(one, tasks, keys, (8, 16, 24, 32))) == [[value] * 3 for value in (8, 16, 24, 32)]


def test_another_root_has_its_own_configs(tmp_path):
    (tmp_path / "configs").mkdir()
    values = OmegaConf.to_container(OmegaConf.load(HERE / "configs" / "train.yaml"))
    values["defaults"] = ["_self_"]
    values["optimizer"]["lr"] = 0.7
    OmegaConf.save(OmegaConf.create(values), tmp_path / "configs" / "train.yaml")
    task = replace(TASK, base=(), root=tmp_path)
    assert leaves(composed(task))["optimizer.lr"] == 0.7


@pytest.mark.parametrize("model", ["eclip_tiny", "eclip_vits"])
def test_eclip_space_fits_both_models(model):
    """Whatever a sampler draws from the space is accepted by the task's own check."""
    task = replace(
        Task.load(ROOT / "configs" / "task" / "eclip.yaml", ROOT),
        base=("experiment=baseline", f"model={model}"),
    )
    space = Space.load(ROOT / "configs" / "space" / "eclip.yaml", task)
    assert {"optimizer.lr", "model.logit_scale.max", "expert.fusion"} <= set(space.distributions)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(10):
        drawn = study.ask(dict(space.distributions)).params
        result = validate(task, {}, active(drawn, space), space)
        key = random.Random(0).choice(sorted(result.overrides))
        assert result.config[key] == pytest.approx(drawn[key])
        assert result.config == leaves(composed(task, result.arguments)), "as Hydra alone composes it"


def test_a_kept_eclip_recipe_reproduces_itself(tmp_path):
    """Also over what an experiment sets for one model only."""
    task = Task.load(ROOT / "configs" / "task" / "eclip.yaml", ROOT)
    overrides = {
        "optimizer.lr": 5e-05,
        "trainer.max_steps": 77,
        "model.logit_scale.max": 100.0,
        "loss.name": "siglip",
    }
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    (tmp_path / task.recipe.file).write_text(recipe_text(task, overrides))
    expected = validate(task, {}, overrides).config_hash
    assert config_hash(task, leaves(composed(task.at(tmp_path), [task.recipe.select]))) == expected
