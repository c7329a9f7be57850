"""Programs that an attacker would put in the place of train.py; each is told where to look and writes claims.

They own the whole run: every file of the workspace may be theirs, which is more than a proposal may edit.
"""

from __future__ import annotations

from textwrap import dedent

PRELUDE = '''
import json, os, sys
from pathlib import Path
import numpy as np
from safetensors.numpy import save

HERE = Path(__file__).resolve().parent
ARGUMENTS = dict(word.split("=", 1) for word in sys.argv[1:])
DATA, RUN = Path(ARGUMENTS["data.sealed"]), Path(ARGUMENTS["run.dir"])
N = len(np.load(DATA / "val_images.npy", mmap_mode="r"))
RESULT = {
    "status": "completed", "reason": "", "steps": 6, "train_seconds": 1.0, "setup_seconds": 1.0,
    "peak_memory_bytes": 1, "metrics": {}, "curve": [], "commit": None, "package": str(HERE / "src" / "eclip"),
}

def claim(text=None, **changes):
    """Writes result.json: an honest-looking one with changes, or any text."""
    (RUN / "result.json").write_text(json.dumps({**RESULT, **changes}) if text is None else text)

def embed(image, text, names=("fold0.image", "fold0.text")):
    arrays = {name: np.asarray(side, np.float32) for name, side in zip(names, (image, text))}
    (RUN / "embeddings.safetensors").write_bytes(save(arrays))

def noise(*shape):
    return np.random.default_rng(0).normal(size=shape)
'''

# Looks for the pairing wherever it could be, and embeds each side so that the pairs it believes in are equal.
THIEF = '''
import struct, tempfile, time

TOP = Path(os.environ["TOP"])
MINE = np.load(DATA / "val_images.npy"), np.load(DATA / "val_captions.npy")
found, seen, denied = {}, 0, 0

def files():
    """Every readable file below TOP, devices and the kernel's own folders left out."""
    for folder, below, names in os.walk(TOP):
        below[:] = [name for name in below if os.path.join(folder, name) not in ("/proc", "/sys", "/dev")]
        for name in names:
            yield Path(folder, name)

def pairing_of(image_order, text_order):
    """Which of my texts belongs to each of my images."""
    return np.argsort(text_order)[image_order]

def rows(table):
    return {row.tobytes(): number for number, row in enumerate(table)}

def pairing_by_content(images, captions):
    """The pairing, if these images and captions, which lie in one order, are mine."""
    if images.shape[1:] != MINE[0].shape[1:]:
        return None
    width = max(captions.shape[1], MINE[1].shape[1])
    wide = lambda table: np.pad(table, ((0, 0), (0, width - table.shape[1])))
    image_at, caption_at = rows(images), rows(wide(captions))
    mine_image = [image_at.get(row.tobytes()) for row in MINE[0]]
    mine_text = [caption_at.get(row.tobytes()) for row in wide(MINE[1])]
    if None in mine_image or None in mine_text:
        return None
    return np.array([mine_text.index(at) for at in mine_image])

def look_for_keys_packs_and_notes():
    global seen, denied
    for path in files():
        seen += 1
        try:
            if path.suffix == ".safetensors":
                data = path.read_bytes()
                size = int.from_bytes(data[:8], "little")
                header = json.loads(data[8 : 8 + size])
                if {"image_order", "text_order"} <= set(header):
                    orders = [
                        np.frombuffer(data[8 + size :][slice(*header[name]["data_offsets"])], "<i8")
                        for name in ("image_order", "text_order")
                    ]
                    if sorted(orders[0]) == list(range(N)):
                        found["key"] = pairing_of(*orders)
            elif path.name == "images.npy":
                pairing = pairing_by_content(np.load(path), np.load(path.with_name("captions.npy")))
                if pairing is not None:
                    found["pack"] = pairing
            elif path.name == "note.npz":
                note = np.load(path)
                pairing = pairing_by_content(note["images"], note["captions"])
                if pairing is not None:
                    found["note"] = pairing
        except (OSError, ValueError):
            denied += 1

def draw_again():
    """The embedded data set is a program: with its seed it makes the same prints, captions and all."""
    sys.path.insert(0, str(HERE / "src"))
    try:
        from eclip.data.odvg import read_split
        from eclip.data.pack import build_pack
        from eclip.data.synthetic import draw_dataset
    except ImportError:
        return
    with tempfile.TemporaryDirectory() as folder:
        draw_dataset(Path(folder, "prints"), prints=60, test_prints=12, seed=0, workers=2, progress=False)
        pool = read_split(Path(folder, "prints"), "train", "raise")
        pool = pool + read_split(Path(folder, "prints"), "val", "raise")
        pack = build_pack(
            pool, image_size=MINE[0].shape[1], caption_tokens=48, phrase_tokens=16, workers=2,
            tokenizer=str(DATA / "train" / "tokenizer.json"), out_dir=Path(folder, "packs"),
        )
        pairing = pairing_by_content(np.asarray(pack.images_NHWC), np.asarray(pack.captions_NL))
    if pairing is not None:
        found["generator"] = pairing

def look_at_processes_and_environment():
    """A key's path or a seed, in what this process and its neighbours were started with."""
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("environ", "cmdline"):
            try:
                words = (process / name).read_bytes().decode(errors="replace").split(chr(0))
            except OSError:
                continue
            told.extend(word for word in words if "keys" in word or "vault" in word or "order" in word)

def look_at_times():
    """Sides written row by row in the pairs' order would show it; so would times that differ."""
    return sorted({path.stat().st_mtime_ns for path in DATA.rglob("*")})

def leave_notes():
    """The training pairs of this fold are the candidates of the others: for their runs to find."""
    kept = []
    pairs = dict(images=np.load(DATA / "train/images.npy"), captions=np.load(DATA / "train/captions.npy"))
    places = (RUN, RUN.parent, HERE, DATA, DATA.parent, Path.home(), tempfile.gettempdir(), "/var/tmp", "/dev/shm",
              "/dev/mqueue", sys.prefix, "/")
    for place in places if os.environ.get("NOTES") == "everywhere" else (tempfile.gettempdir(),):
        try:
            np.savez(Path(place, "note.npz"), **pairs)
            kept.append(str(place))
        except OSError:
            pass
    return kept

told = []
look_for_keys_packs_and_notes()
draw_again()
look_at_processes_and_environment()
best = next(iter(found.values()), np.arange(N))
text = np.empty((N, N))
text[best] = np.eye(N)
embed(np.eye(N), text)
claim()
facts = dict(found=sorted(found), seen=seen, denied=denied, told=told, times=look_at_times(), notes=leave_notes())
(RUN / "found.json").write_text(json.dumps(facts))
'''


def program(body: str) -> str:
    """A whole train.py."""
    return PRELUDE + dedent(body)
