"""Trials and studies go in, W&B runs on disk come out, each written whole and closed again.

A run is `<folder>/wandb/offline-run-<date>-<id>/run-<id>.wandb`. Its id follows from the study and the trial's number
alone. W&B replaces a run by a later upload with the same id, so that writing a run anew and uploading it again
never doubles anything; the folder that it supersedes is removed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.codec import to_json
from agent.ledger import StudySpec
from agent.progress import Point
from agent.records import Trial
from agent.trial_table import word_for
from agent.wandb_file import written

COMPLETE = "complete"  # in a run's folder once all of it is written
SPARE_BYTES = 65536  # with less than this, W&B may have dropped the end of a run without a word
END_SECONDS = 10.0  # for W&B to write what it has been told
AXES = ("trials", "seconds", "usd")


class RunFolderError(RuntimeError):
    """W&B did not write where it was told to, or not all of it."""


class RunFolder:
    """The runs of one study below `folder` (runs/<study>). `token` makes their ids unique among all studies."""

    def __init__(self, folder: Path, project: str, study: str, spec: StudySpec, token: str) -> None:
        self.folder, self.project, self.study, self.spec, self.token = folder, project, study, spec, token
        marks = (folder / "wandb").glob(f"offline-run-*/{COMPLETE}")
        self._whole = {
            file.stem.removeprefix("run-") for mark in marks for file in mark.parent.glob("run-*.wandb")
        }

    def has(self, trial: Trial) -> bool:
        """Whether the trial's run is there, whole."""
        return self._trial_id(trial) in self._whole

    def write_trial(self, trial: Trial, config: Mapping[str, Any]) -> None:
        """The trial's curve, its judged metrics, its verdict and its charges."""
        self._write(
            self._trial_id(trial),
            f"{self.study}/{trial.number}",
            nested(config),
            list(dict.fromkeys([trial.verdict.decision if trial.verdict else "", word_for(trial)])),
            curve_rows(trial),
            {"*": "step"},
            summary(trial, self.spec),
        )

    def write_study(self, points: Sequence[Point]) -> None:
        """Best so far against trials, seconds and dollars, from the study's first trial to its last."""
        self._write(
            f"{self.token}-study",
            self.study,
            {"kind": "study", **to_json(self.spec)},
            ["study"],
            [row for point in points if (row := study_row(point))],
            {f"{name}/over_{axis}": axis for axis in AXES for name in ("best", "score")},
            study_row(points[-1]) if points else {},
        )

    def _trial_id(self, trial: Trial) -> str:
        return f"{self.token}-{trial.number:04d}"

    def _written(self, run_id: str) -> list[Path]:
        # by the file's name: W&B numbers folders of one id and one second
        return [file.parent for file in (self.folder / "wandb").glob(f"offline-run-*/run-{run_id}.wandb")]

    def _write(
        self,
        run_id: str,
        name: str,
        config: Mapping[str, Any],
        tags: Sequence[str],
        rows: Iterable[Mapping[str, Any]],
        axes: Mapping[str, str],
        last: Mapping[str, Any],
    ) -> None:
        import wandb

        earlier = self._written(run_id)
        superseded = [path for path in earlier if (path / COMPLETE).exists()]
        for half in (path for path in earlier if path not in superseded):
            shutil.rmtree(half)
        (self.folder / "wandb").mkdir(parents=True, exist_ok=True)
        run = wandb.init(
            project=self.project,
            dir=self.folder,
            id=run_id,
            name=name,
            group=self.study,
            job_type=self.spec.searcher,
            config=dict(config),
            tags=list(tags),
            mode="offline",
            settings=quiet(),
        )
        try:
            for axis in dict.fromkeys(axes.values()):
                run.define_metric(axis, hidden=True)
            for metric, axis in axes.items():
                run.define_metric(metric, step_metric=axis)
            for row in rows:
                run.log(dict(row))
            run.summary.update(dict(last))
        finally:
            run.finish()
        self._close(Path(run.dir).parent, run_id)
        for path in superseded:
            shutil.rmtree(path, ignore_errors=True)

    def _close(self, path: Path, run_id: str) -> None:
        """W&B reports neither another folder that it took instead nor a file that it could not write."""
        if path.parent.resolve() != (self.folder / "wandb").resolve():
            raise RunFolderError(f"{self.folder / 'wandb'} cannot be written")
        file = path / f"run-{run_id}.wandb"
        if shutil.disk_usage(path).free < SPARE_BYTES or not written(file, END_SECONDS):
            raise RunFolderError(
                f"{file} was not written, or not all of it: the disk is full, or W&B was killed"
            )
        (path / COMPLETE).touch()
        self._whole.add(run_id)


def curve_rows(trial: Trial) -> list[dict[str, float]]:
    """`{"step": 40, "fold0/loss": 3.1, "fold1/loss": 3.0, "rerun1/fold0/loss": …}`, in order of step.

    A fold that is trained again, with another training seed, is a re-run; runs that failed stand under `failed/`.
    """
    rows: dict[float, dict[str, float]] = {}
    turn: dict[float, int] = {}
    before: Mapping[str, float] = {}
    for index, point in enumerate(trial.outcome.curve if trial.outcome else ()):
        fold, step = point.get("fold", 0.0), point.get("step", float(index))
        if fold != before.get("fold") or step <= before.get("step", -1.0):
            turn[fold] = turn.get(fold, -1) + 1
        before = {"fold": fold, "step": step}
        place = f"fold{fold:g}" if fold >= 0 else "failed"
        prefix = f"rerun{turn[fold]}/{place}" if turn[fold] else place
        row = rows.setdefault(step, {"step": step})
        row |= {f"{prefix}/{key}": value for key, value in point.items() if key not in ("fold", "step")}
    return [rows[step] for step in sorted(rows)]


def summary(trial: Trial, spec: StudySpec) -> dict[str, Any]:
    """What was judged (mean and for each fold), decided and charged; what is not there is left out."""
    assert trial.outcome is not None
    measured = trial.outcome.measurements
    found: dict[str, Any] = {
        "score": trial.outcome.score,
        "outcome": trial.outcome.status,
        "reason": trial.outcome.reason or (trial.verdict.reason if trial.verdict else ""),
        "stopped_early": trial.outcome.stopped_early,
        "hypothesis": trial.proposal.hypothesis,
        "category": trial.proposal.category,
        "route": trial.proposal.route,
        "commit": trial.commit,
        "sandbox": spec.sandbox,
    }
    found |= {f"charges/{key}": value for key, value in to_json(trial.charges).items()}
    if trial.verdict is not None:
        found |= {"verdict": trial.verdict.decision, "probability": trial.verdict.probability}
        found |= {"delta": trial.verdict.delta, "reruns": trial.verdict.reruns}
    for metric in sorted({name for item in measured for name in item.metrics}):
        values = [(item.fold, item.metrics[metric]) for item in measured if metric in item.metrics]
        found[f"judged/{metric}"] = _mean([value for _, value in values])
        for fold in sorted({fold for fold, _ in values}):
            found[f"judged/fold{fold}/{metric}"] = _mean([value for at, value in values if at == fold])
    return {key: value for key, value in found.items() if value is not None and value != ""}


def study_row(point: Point) -> dict[str, Any]:
    """One point of the study: the same values under a name for each axis, so that W&B draws all of them."""
    at = {"trials": point.trials, "seconds": point.spent.seconds, "usd": point.spent.usd}
    shown = {"best": point.best, "score": point.trial}
    scores = {
        name: t.outcome.score for name, t in shown.items() if t and t.outcome and t.outcome.score is not None
    }
    row: dict[str, Any] = {f"{name}/over_{axis}": score for name, score in scores.items() for axis in AXES}
    return {**at, **row, "trial": point.trial.number, "verdict": word_for(point.trial)}


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """`{"optimizer.lr": 1}` as `{"optimizer": {"lr": 1}}`."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *sections, last = key.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[last] = value
    return tree


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def quiet() -> Any:
    import wandb

    return wandb.Settings(
        x_disable_stats=True,
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
        disable_git=True,
        disable_code=True,
        console="off",
        silent=True,
        symlink=False,
        # several runs in one process, and none of them is "the" run of whoever called the lab
        reinit="create_new",
    )
