"""python train.py optimizer.lr=0.1: a Hydra program that obeys the run contract, and misbehaves on demand."""

import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))

import hydra
import numpy as np
import toy
from omegaconf import OmegaConf
from safetensors.numpy import load_file, save_file
from toy.model import FeatureMap


def read_fold(cfg, fold):
    """(training image, training text, validation image, validation text) of one fold."""
    if cfg.evaluation == "sealed":
        folder = Path(cfg.data.sealed)
        train, validation = (
            load_file(folder / "train.safetensors"),
            load_file(folder / "validation.safetensors"),
        )
        return train["image"], train["text"], validation["image"], validation["text"]
    from toy.data import draw, split

    image, text = draw(cfg.data.seed, cfg.data.pairs)
    train, validation = split(cfg.data.pairs, fold)
    return image[train], text[train], image[validation], text[validation]


def train_fold(cfg, fold):
    image, text, unseen_image, unseen_text = read_fold(cfg, fold)
    model = FeatureMap(image.shape[1], text.shape[1], seed=cfg.seed, **cfg.model)
    curve = model.fit(image, text, seconds=cfg.budget.seconds, **cfg.optimizer)
    arrays = {f"fold{fold}.image": model.embed(unseen_image), f"fold{fold}.text": unseen_text}
    return curve, {name: array.astype(np.float32) for name, array in arrays.items()}


def misbehave(kind, seconds, megabytes):
    """The faults that happen before training."""
    if kind == "crash":
        raise RuntimeError("the toy was told to crash")
    if kind == "diverge":
        raise FloatingPointError("loss nan at step 3")
    if kind == "out_of_memory":
        # every page is touched: a memory limit may end it first
        held = [np.ones(2**17) for _ in range(megabytes)]
        raise MemoryError(f"no room beside {len(held)} blocks")
    if kind == "hang":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(seconds)
    if kind == "gate":
        until = time.monotonic() + seconds
        while not (Path(__file__).parent / "gate").exists() and time.monotonic() < until:
            time.sleep(0.02)
    if kind == "silent":
        os._exit(0)


def spoil(kind, arrays):
    """The faults that lie in the embeddings."""
    changes = {
        "nan": lambda array: np.full_like(array, np.nan),
        "constant": np.ones_like,
        "wrong_shape": lambda array: array[:-1],
    }
    change = changes.get(kind, lambda array: array)
    return {name: change(array) for name, array in arrays.items()}


def kernel(folder):
    """What is compiled, or was before."""
    file = Path(folder) / "deep" / "kernel"
    if not file.exists():
        file.parent.mkdir(parents=True)
        file.write_text("made of the code as it was committed")
    return file.read_text()


def run(cfg, folder, result):
    misbehave(**cfg.fault)
    if cfg.kernels:
        (folder / "kernel").write_text(kernel(cfg.kernels))
    started, embeddings = time.perf_counter(), {}
    for fold in cfg.data.folds:
        curve, arrays = train_fold(cfg, fold)
        embeddings.update(arrays)
        result["curve"], result["steps"] = curve[-200:], result["steps"] + len(curve)
    result["train_seconds"] = time.perf_counter() - started
    save_file(spoil(cfg.fault.kind, embeddings), folder / "embeddings.safetensors")


@hydra.main(version_base="1.3", config_path="configs", config_name="train")
def main(cfg):
    folder = Path(cfg.run.dir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(json.dumps(OmegaConf.to_container(cfg, resolve=True)))
    result = {"status": "completed", "reason": "", "steps": 0, "train_seconds": 0.0, "setup_seconds": 0.0}
    result |= {"peak_memory_bytes": 0, "metrics": {}, "curve": [], "commit": None}
    result["package"] = (
        "/elsewhere/toy" if cfg.fault.kind == "other_package" else str(Path(toy.__file__).parent)
    )
    statuses = {MemoryError: "out_of_memory", FloatingPointError: "diverged"}
    try:
        run(cfg, folder, result)
    except Exception as error:
        result["status"], result["reason"] = statuses.get(type(error), "crashed"), str(error)
        traceback.print_exc()
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "train.log").write_text(f"{result['status']} {result['reason']}\n")
    sys.exit(result["status"] != "completed")


if __name__ == "__main__":
    main()
