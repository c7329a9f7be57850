"""A folder, a seed and numbers go in; JPEG files and ODVG lines come out, drawn by several processes.

`python -m eclip.data.synthetic` is one such process: the order on its command line, a line `number TAB odvg`
on standard output for each print. Plain child processes, because multiprocessing would import the caller's
main program (training, with torch) again in each child, or fork a process that has threads.
"""

from __future__ import annotations

import itertools
import json
import os
import selectors
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from eclip.data.synthetic.caption import describe
from eclip.data.synthetic.dice import Dice
from eclip.data.synthetic.draw.artist import Print, draw_print
from eclip.data.synthetic.scene import Scene, compose

PRINTS_A_PROCESS = 16  # at least: a process takes as long to start as this many prints to draw
_SOURCE = Path(__file__).parents[3]  # the folder that holds the eclip package


def draw_one(images: Path, seed: int, index: int) -> str:
    """Draw print `index` of `seed` to a file under `images`; its ODVG line."""
    scene, drawn = compose_and_draw(seed, index)
    caption = describe(scene, drawn.seen, Dice(seed, index, "caption"))
    filename = f"print_{index:06d}.jpg"
    drawn.image.save(images / filename, "JPEG", quality=88, subsampling=0)
    regions = [
        {"bbox": list(boxes[0]) if len(boxes) == 1 else [list(box) for box in boxes], "phrase": phrase}
        for phrase, boxes in caption.regions
    ]
    grounding = {"caption": caption.text, "regions": regions}
    return json.dumps(
        {"filename": filename, "width": scene.width, "height": scene.height, "grounding": grounding}
    )


def compose_and_draw(seed: int, index: int) -> tuple[Scene, Print]:
    """The first of a print's scenes, nearly always the first of all, in which anything can be seen."""
    for attempt in itertools.count():
        scene = compose(Dice(seed, index, f"scene {attempt}"))
        drawn = draw_print(scene, Dice(seed, index, f"draw {attempt}"))
        if drawn.seen:
            return scene, drawn
    raise AssertionError("unreachable: itertools.count() does not end")


def draw_all(images: Path, seed: int, count: int, workers: int) -> Iterator[tuple[int, str]]:
    """Draw prints 0 to `count` - 1; yields (number, ODVG line) as they are done, in any order."""
    workers = min(workers, max(1, count // PRINTS_A_PROCESS))
    if workers == 1:
        yield from ((index, draw_one(images, seed, index)) for index in range(count))
        return
    with ExitStack() as stack:
        errors = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(workers)]
        children = [_start(images, seed, range(k, count, workers), errors[k]) for k in range(workers)]
        for child in children:
            stack.callback(_end, child)
        yield from _collect(children)
        for child, error in zip(children, errors, strict=True):
            if child.wait():
                error.seek(0)
                raise RuntimeError(
                    f"a drawing process ended with status {child.returncode}:\n{error.read()[-2000:]}"
                )


def _start(images: Path, seed: int, share: range, errors: IO[str]) -> subprocess.Popen[bytes]:
    order = [str(images), str(seed), str(share.start), str(share.stop), str(share.step)]
    path = os.pathsep.join([str(_SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "eclip.data.synthetic", *order]
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=environment)


def _collect(children: list[subprocess.Popen[bytes]]) -> Iterator[tuple[int, str]]:
    """Lines of whichever child has one, until all have closed their output."""
    with selectors.DefaultSelector() as ready:
        for child in children:
            assert child.stdout is not None
            ready.register(child.stdout, selectors.EVENT_READ)
        begun = {key.fd: b"" for key in ready.get_map().values()}
        while ready.get_map():
            for key, _ in ready.select():
                data = os.read(key.fd, 1 << 16)
                if not data:
                    ready.unregister(key.fileobj)
                *lines, begun[key.fd] = (begun[key.fd] + data).split(b"\n")
                for line in lines:
                    index, _, odvg = line.decode().partition("\t")
                    yield int(index), odvg


def _end(child: subprocess.Popen[bytes]) -> None:
    """Leave no child behind, whatever ended the parent's loop."""
    if child.poll() is None:
        child.kill()
    child.wait()
    if child.stdout is not None:
        child.stdout.close()


def main(images: str, seed: str, start: str, stop: str, step: str) -> None:
    """One drawing process: every `step`-th print from `start` to before `stop`."""
    for index in range(int(start), int(stop), int(step)):
        print(index, draw_one(Path(images), int(seed), index), sep="\t", flush=True)
