"""Every number that a figure shows, computed again from the ledger's own rows by the most naive means."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import NormalDist, fmean, median, stdev
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

from agent.report.attribution import attribution
from agent.report.best_so_far import AXES
from agent.report.campaign import Campaign, load
from agent.report.figures import style
from agent.report.figures.bars import attribution_bars, importance_bars
from agent.report.figures.confirmed import confirmed
from agent.report.figures.race import race
from agent.report.figures.staircase import staircase
from agent.report.figures.style import THEMES, for_page, save, spread
from agent.report.files import figures
from agent.report.importance import Importance, importance
from tests.agent.report.ledgers import fill
from tests.agent.report.synthetic import Kind, Maker, ablated

THEME = THEMES["light"]
WORTHS = {"optimizer.lr": 0.2, "expert.weight": 0.1, "edits losses.py": 0.0}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger of two searchers with four studies each, one of them ablated."""
    path = tmp_path_factory.mktemp("figures") / "ledger.db"
    maker = Maker(np.random.default_rng(9), trials=25)
    kinds = {
        "tpe": Kind(crashes=0.2),
        "claude": Kind(gain=0.5, usd=0.1, promised=0.1, seconds=62, route="llm"),
    }
    studies = list(maker.campaign(kinds, 4).studies)
    studies[0] = ablated(maker, studies[0], WORTHS)
    fill(path, studies)
    return path


@pytest.fixture(scope="module")
def campaign(path: Path) -> Campaign:
    from agent.ledger import Ledger

    ledger = Ledger.open(f"sqlite:///{path}")
    return load(ledger, ledger.studies())


# ------------------------------------------------------------------ the ledger, read without the lab


def studies_of(path: Path, searcher: str = "") -> dict[str, list[dict[str, Any]]]:
    """Study -> its trials as plain JSON, in order."""
    base = sqlite3.connect(path)
    found: dict[str, list[dict[str, Any]]] = {}
    for number, name in base.execute("SELECT study_id, study_name FROM studies ORDER BY study_id"):
        sql = "SELECT trial_id FROM trials WHERE study_id = ? ORDER BY number"
        for (trial,) in base.execute(sql, (number,)).fetchall() if name.startswith(searcher) else []:
            sql = "SELECT key, value_json FROM trial_user_attributes WHERE trial_id = ?"
            found.setdefault(name, []).append({k: json.loads(v) for k, v in base.execute(sql, (trial,))})
    return found


def events_of(path: Path, study: str, event: str) -> list[dict[str, Any]]:
    sql = "SELECT value_json FROM study_user_attributes a JOIN studies s ON a.study_id = s.study_id"
    rows = sqlite3.connect(path).execute(f"{sql} WHERE s.study_name = ? AND key LIKE 'event:%'", (study,))
    return [entry for entry in map(json.loads, (row[0] for row in rows)) if entry["event"] == event]


def naive_curve(trials: list[dict[str, Any]], axis: str) -> list[tuple[float, float]]:
    """(x, best so far / reference) after each trial."""
    reference, best, used, points = trials[0]["result"]["outcome"]["score"], 0.0, 0.0, []
    for number, trial in enumerate(trials):
        result = trial["result"]
        used = number if axis == "trials" else used + result["charges"][axis]
        if result["verdict"]["decision"] in ("kept", "reference"):
            best = result["outcome"]["score"]
        points.append((used, best / reference))
    return points


def naive_at(points: list[tuple[float, float]], x: float) -> float:
    return [y for place, y in points if place <= x + 1e-9][-1]


def naive_quantile(values: list[float], share: float) -> float:
    ordered, place = sorted(values), share * (len(values) - 1)
    low = math.floor(place)
    high = min(low + 1, len(values) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def naive_level(measurements: list[dict[str, Any]]) -> float:
    return fmean(math.log(m["score"]) for m in measurements)


def artist(figure: Figure, gid: str) -> Any:
    [found] = figure.findobj(lambda one: one.get_gid() == gid)
    return found


def points(figure: Figure, gid: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in artist(figure, gid).get_xydata()]


# ------------------------------------------------------------------ figure by figure


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("searcher", ["tpe", "claude"])
def test_race(path: Path, campaign: Campaign, axis: str, searcher: str) -> None:
    figure = race(campaign, axis, THEME)  # type: ignore[arg-type]
    curves = [naive_curve(trials, axis) for trials in studies_of(path, searcher).values()]
    drawn = points(figure, f"median:{searcher}")
    end = median(curve[-1][0] for curve in curves)
    assert drawn[-1][0] <= end + 1e-6
    for x, y in drawn:
        assert y == pytest.approx(100 * median(naive_at(curve, x) for curve in curves))
    # nothing is left out: every change of the median is drawn
    for x in {x for curve in curves for x, _ in curve if drawn[0][0] <= x <= end}:
        expected = 100 * median(naive_at(curve, x) for curve in curves)
        assert naive_at(drawn, x) == pytest.approx(expected)
    band = artist(figure, f"band:{searcher}").get_paths()[0]
    for (x, _), (after, _) in pairwise(drawn):
        middle = (x + after) / 2
        low, high = (100 * naive_quantile([naive_at(c, x) for c in curves], q) for q in (0.25, 0.75))
        edge = 0.02
        if high - low > 3 * edge:
            inside = [
                band.contains_point((middle, y)) for y in (low + edge, high - edge, low - edge, high + edge)
            ]
            assert inside == [True, True, False, False]


def test_staircase(path: Path, campaign: Campaign) -> None:
    name = "tpe-1"
    trials = studies_of(path, name)[name]
    study = next(s for s in campaign.studies if s.name == name)
    figure = staircase(campaign, study, THEME)
    assert figure is not None
    by_kind: dict[str, list[tuple[float, float]]] = {"kept": [], "tried": [], "failed": []}
    for number, trial in enumerate(trials):
        outcome, decision = trial["result"]["outcome"], trial["result"]["verdict"]["decision"]
        kind = "failed" if outcome["status"] != "completed" else "tried" if decision == "reverted" else "kept"
        by_kind[kind].append((number, outcome["score"]))
    low, high = figure.axes[0].get_ylim()
    np.testing.assert_allclose(points(figure, "kept"), by_kind["kept"])
    clipped = [(n, min(max(s, low), high)) for n, s in by_kind["tried"]]
    np.testing.assert_allclose(points(figure, "tried"), clipped)
    assert [x for x, _ in points(figure, "failed")] == [n for n, _ in by_kind["failed"]]
    assert artist(figure, "reference").get_ydata()[0] == trials[0]["result"]["outcome"]["score"]
    steps = points(figure, "staircase")
    np.testing.assert_allclose(steps[:-1], by_kind["kept"])
    assert steps[-1] == (len(trials) - 1, by_kind["kept"][-1][1])
    # the noise band about the first step
    half = naive_noise(trials)
    edges = artist(figure, "noise band").get_paths()[0]
    middle, level = by_kind["kept"][1][0] / 2, by_kind["kept"][0][1]
    inside = [edges.contains_point((middle, level * math.exp(s * half))) for s in (0.97, -0.97, 1.03, -1.03)]
    assert inside == [True, True, False, False]


def naive_noise(trials: list[dict[str, Any]]) -> float:
    """Half the width of the band on the log scale; formulas of agent/noise.py, the long way."""
    from scipy.stats import t

    reference = trials[0]["result"]["outcome"]["measurements"]
    value = {(m["seed"], m["fold"]): math.log(m["score"]) for m in reference}
    seeds, folds = sorted({s for s, _ in value}), sorted({f for _, f in value})
    of_seed = {s: fmean(value[s, f] for f in folds) for s in seeds}
    of_fold = {f: fmean(value[s, f] for s in seeds) for f in folds}
    mean = fmean(value.values())
    rest = sum((value[s, f] - of_seed[s] - of_fold[f] + mean) ** 2 for s in seeds for f in folds)
    fold_variance = (4 * 0.03**2 + rest) / (4 + (len(seeds) - 1) * (len(folds) - 1))
    means = sum((of_seed[s] - mean) ** 2 for s in seeds)
    total = (4 * fold_variance * (1 / len(folds) + 0.3) + means) / (4 + len(seeds) - 1)
    return float(t.ppf(0.975, 4 + len(seeds) - 1)) * math.sqrt(max(total, fold_variance / len(folds)))


def test_confirmed(path: Path, campaign: Campaign) -> None:
    figure = confirmed(campaign, THEME)
    assert figure is not None
    for name, trials in studies_of(path).items():
        kept = [n for n, t in enumerate(trials) if t["result"]["verdict"]["decision"] == "kept"][-1]
        found = {
            (e["role"], e["trial"]): e["measurements"]
            for e in events_of(path, name, "confirmed")
            if e["budget_factor"] == 1
        }
        gain = naive_level(found["reference", 0]) - naive_level(found["winner", kept])
        assert points(figure, f"confirmed:{name}")[0][0] == pytest.approx(100 * (1 - math.exp(-gain)))
        measured = [trials[n]["result"]["outcome"]["measurements"] for n in (0, kept)]
        promised = naive_level(measured[0]) - naive_level(measured[1])
        assert points(figure, f"promised:{name}")[0][0] == pytest.approx(100 * (1 - math.exp(-promised)))
        seeds = [_by_seed(found["reference", 0]), _by_seed(found["winner", kept])]
        low, high = (x for x, _ in points(figure, f"interval:{name}"))
        expected = [100 * (1 - math.exp(-end)) for end in naive_bootstrap(*seeds)]
        assert (low, high) == pytest.approx(expected, abs=0.15 * (high - low))


def _by_seed(measurements: list[dict[str, Any]]) -> list[float]:
    seeds = sorted({m["seed"] for m in measurements})
    return [fmean(math.log(m["score"]) for m in measurements if m["seed"] == seed) for seed in seeds]


def naive_bootstrap(first: list[float], second: list[float]) -> tuple[float, float]:
    """Resampling one value at a time, with other random numbers; levels widened as the docstring says."""
    import random

    from scipy.stats import norm, t

    chance, means = random.Random(1), []
    for _ in range(3_000):
        total = 0.0
        for sign, group in ((1, first), (-1, second)):
            drawn = fmean(chance.choice(group) for _ in group)
            total += sign * (fmean(group) + math.sqrt(len(group) / (len(group) - 1)) * (drawn - fmean(group)))
        means.append(total)
    tail = float(norm.cdf(t.ppf(0.025, min(len(first), len(second)) - 1)))
    return naive_quantile(means, tail), naive_quantile(means, 1 - tail)


def test_attribution(path: Path, campaign: Campaign) -> None:
    study = campaign.studies[0]
    worths = attribution(campaign, study)
    figure = attribution_bars(campaign, worths, THEME)
    trials = studies_of(path, study.name)[study.name]
    kept = [n for n, t in enumerate(trials) if t["result"]["verdict"]["decision"] == "kept"][-1]
    [whole] = [
        e["measurements"]
        for e in events_of(path, study.name, "confirmed")
        if e["role"] == "winner" and e["trial"] == kept and e["budget_factor"] == 1
    ]
    without = {e["change"]: e["measurements"] for e in events_of(path, study.name, "ablated")}
    losses = {
        change: [b - a for a, b in zip(_by_seed(whole), _by_seed(m), strict=True)]
        for change, m in without.items()
    }
    order = sorted(WORTHS, key=lambda change: -fmean(losses[change]))
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()][::-1] == order
    for row, change in enumerate(order):
        assert points(figure, f"worth:{row}")[0][0] == pytest.approx(100 * math.expm1(fmean(losses[change])))
        low, high = (x for x, _ in points(figure, f"interval:{row}"))
        half = 2.7764 * stdev(losses[change]) / math.sqrt(5)  # Student's t with 4 degrees of freedom
        expected = [100 * math.expm1(fmean(losses[change]) + end) for end in (-half, half)]
        assert sorted((low, high)) == pytest.approx(expected, rel=1e-4)
    assert [w.change for w in worths if w.unproven] == ["edits losses.py"]


def test_an_ablation_on_more_seeds_replaces_the_one_before(campaign: Campaign) -> None:
    """The event on five seeds holds the two of the first again; another removal of that name is another change."""
    study = campaign.studies[0]
    [event] = [e for e in study.events if e["event"] == "ablated" and e["change"] == "edits losses.py"]
    rest = tuple(e for e in study.events if e is not event)
    few = {**event, "measurements": [m for m in event["measurements"] if m["seed"] in (100, 101)]}
    both = replace(study, events=(*rest, few, event))
    once = replace(study, events=(*rest, event))
    assert attribution(campaign, both) == attribution(campaign, once)
    other = {**few, "removal": "without0007-another"}
    found = [w for w in attribution(campaign, replace(study, events=(*rest, event, other))) if w.unproven]
    assert sorted(worth.seeds for worth in found if worth.change == "edits losses.py") == [2, 5]


def test_importance(path: Path, campaign: Campaign) -> None:
    found = importance(campaign)
    figure = importance_bars(found, THEME)
    pairs: dict[str, list[tuple[Any, float]]] = {}
    for trials in studies_of(path).values():
        reference = trials[0]["result"]["outcome"]["score"]
        for trial in trials[1:]:
            if trial["result"]["outcome"]["status"] == "completed":
                for knob, value in trial["result"]["overrides"].items():
                    pairs.setdefault(knob, []).append(
                        (value, trial["result"]["outcome"]["score"] / reference)
                    )
    assert {item.knob for item in found} == set(pairs)
    for row, item in enumerate(found):
        values, scores = zip(*pairs[item.knob], strict=True)
        if isinstance(values[0], str):
            # two choices: Kruskal and Wallis's measure is the rank correlation with 0 and 1
            values = tuple(float(value == "cls") for value in values)
        expected = abs(float(np.corrcoef(naive_ranks(values), naive_ranks(scores))[0, 1]))
        assert artist(figure, f"strength:{row}").get_width() == pytest.approx(expected, rel=1e-6)
        # 95 % for all knobs together
        quantile = NormalDist().inv_cdf(1 - 0.025 / len(found))
        chance = points(figure, f"chance:{row}")[0][0]
        assert chance == pytest.approx(quantile / math.sqrt(len(values) - 1), rel=1e-3)


def test_a_line_under_another_is_still_seen(campaign: Campaign) -> None:
    """Searchers that keep nothing all stay at the reference: none may vanish under the others."""
    one = campaign.studies[0]
    nothing = [t for t in one.trials if t.verdict and t.verdict.decision != "kept"]
    studies = [
        replace(one, name=name, spec=replace(one.spec, searcher=name), trials=tuple(nothing))
        for name in ("a", "b", "c")
    ]
    figure = race(replace(campaign, studies=tuple(studies)), "trials", THEME)
    widths = [artist(figure, f"median:{name}").get_linewidth() for name in "abc"]
    assert widths[0] > widths[1] > widths[2]
    apart = race(campaign, "trials", THEME)
    assert artist(apart, f"median:{campaign.searchers[-1]}").get_linewidth() == widths[2]


def naive_ranks(values: tuple[float, ...]) -> list[float]:
    """Mean rank of each value among all."""
    return [sum(v < value for v in values) + (sum(v == value for v in values) + 1) / 2 for value in values]


# ------------------------------------------------------------------ looks


@pytest.fixture(scope="module", params=["as here", "DejaVu Sans"])
def drawn(request: pytest.FixtureRequest, campaign: Campaign) -> Iterator[list[tuple[str, Figure]]]:
    """All figures, in the font of this machine and in the wide one that every machine has."""
    known = style.FONTS
    style.FONTS = known if request.param == "as here" else (request.param,)
    style._font.cache_clear()
    yield list(figures(campaign, THEME, overlay=True))
    style.FONTS = known
    style._font.cache_clear()


def test_texts_do_not_overlap_or_leave_the_figure(drawn: list[tuple[str, Figure]]) -> None:
    assert {name.split("-")[0] for name, _ in drawn} == {
        "race",
        "confirmed",
        "progress",
        "attribution",
        "importance",
    }
    for name, figure in drawn:
        figure.draw_without_rendering()
        boxes = [
            (text.get_text(), text.get_window_extent())
            for text in [*figure.texts, *(t for axes in figure.axes for t in _texts(axes))]
            if text.get_visible() and text.get_text().strip()
        ]
        width, height = figure.get_size_inches() * figure.dpi
        for said, box in boxes:
            assert box.x0 >= -1, (name, said)
            assert box.x1 <= width + 1, (name, said)
            assert -1 <= box.y0 <= box.y1 <= height + 1, (name, said)
        for index, (said, box) in enumerate(boxes):
            for other, second in boxes[index + 1 :]:
                shared_x = min(box.x1, second.x1) - max(box.x0, second.x0)
                shared_y = min(box.y1, second.y1) - max(box.y0, second.y0)
                assert shared_x <= 1.5 or shared_y <= 2.5, (name, said, other)


def _texts(axes: Any) -> list[Any]:
    ticks = [*axes.get_xticklabels(), *axes.get_yticklabels()]
    low, high = sorted(axes.get_ylim())
    shown = [t for t in ticks if t in axes.get_xticklabels() or low <= t.get_position()[1] <= high]
    start, end = axes.get_xlim()
    shown = [t for t in shown if t not in axes.get_xticklabels() or start <= t.get_position()[0] <= end]
    return [*axes.texts, axes.xaxis.label, *shown]


def test_files_are_pictures(campaign: Campaign, tmp_path: Path) -> None:
    save(race(campaign, "trials", THEMES["dark"]), tmp_path, "race")
    assert (tmp_path / "race.png").read_bytes().startswith(b"\x89PNG")
    assert ElementTree.fromstring((tmp_path / "race.svg").read_text()).tag.endswith("svg")


def test_a_page_figure_has_no_colour_of_its_own(campaign: Campaign) -> None:
    text = for_page(race(campaign, "trials", THEMES["page"]), "race", 'a "race" & more')
    ElementTree.fromstring(text)
    assert "var(--series-1)" in text
    assert "#0a0b" not in text
    assert 'aria-label="a &quot;race&quot; &amp; more"' in text


def test_a_page_figure_says_what_the_figure_says(campaign: Campaign) -> None:
    """Long numbers in texts are not shortened, as those of paths are, and nothing in a text is replaced."""
    figure = importance_bars([Importance("x 0.000123 #0a0b01 url(#a) $", 0.5, 0.1, 12)], THEMES["page"])
    root = ElementTree.fromstring(for_page(figure, "salt", "label"))
    said = {element.text for element in root.iter() if element.tag.endswith("text")}
    assert "x 0.000123 #0a0b01 url(#a) $  (12)".replace("  ", " ") in said


def test_spread_keeps_labels_apart() -> None:
    assert spread([5.0, 5.0, 5.1], 1.0, 0.0, 10.0) == [5.0, 6.0, 7.0]
    assert spread([10.0, 9.8, 1.0], 1.0, 0.0, 10.0) == [10.0, 9.0, 1.0]
    packed = spread([9.0] * 21, 1.0, 0.0, 10.0)
    assert (min(packed), max(packed)) == pytest.approx((0.0, 10.0))
