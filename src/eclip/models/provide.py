"""A model's settings go in; the pretrained files that they name lie in a folder, for runs without network and home.

Finding them imports timm, and may ask the hub: sealing does it in a process of its own (`python -m`).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from eclip.config import ConfigError, Model

WEIGHTS = "weights"  # beside a sealed fold's data
IMAGE, TEXT = "image", "text"
SOURCE = Path(__file__).resolve().parents[2]
Wanted = dict[str, str | None]


def wanted(model: Model) -> Wanted | None:
    """What names the pretrained files; None where the model has none."""
    if not model.pretrained:
        return None
    image, text = model.image, model.text
    return {
        "image": image.name,
        "image_weights": image.weights,
        "text": text.name,
        "text_weights": text.weights,
    }


def provide(names: Wanted, folder: Path) -> None:
    """Copies the files into `folder`, which appears whole or not at all. ConfigError where they cannot be had."""
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    command = [sys.executable, "-m", "eclip.models.provide", json.dumps(names), str(unfinished)]
    path = os.pathsep.join(filter(None, (str(SOURCE), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise ConfigError(
            f"the pretrained weights are not at hand: {lines[-1] if lines else done.returncode}"
        )
    unfinished.rename(folder)


def provided(model: Model, folder: Path) -> Model:
    """The same model with its weights taken from `folder`, if they are there."""
    if not (model.pretrained and folder.is_dir()):
        return model
    (image,) = folder.glob(f"{IMAGE}.*")
    return replace(
        model,
        image=replace(model.image, weights=str(image)),
        text=replace(model.text, weights=str(folder / TEXT)),
    )


def main(names: Wanted, folder: Path) -> None:
    from eclip.models.pretrained import TEXT_FILES, image_file, text_folder

    image = image_file(str(names["image"]), names["image_weights"])
    text = text_folder(str(names["text"]), names["text_weights"])
    (folder / TEXT).mkdir(parents=True)
    shutil.copyfile(image, folder / f"{IMAGE}{image.suffix}")
    for name in TEXT_FILES:
        shutil.copyfile(text / name, folder / TEXT / name)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), Path(sys.argv[2]))
