"""The page in a real browser: no errors, tables that sort, diffs that open, a phone and the dark."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from agent.report.page import page
from tests.agent.report.synthetic import Kind, Maker

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium here (apt-get install chromium)")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars --enable-logging=stderr --v=0"
).split()

# a second script, added to the page with its own hash, clicks and writes what it sees into the title
PROBE = """
const say = {};
window.addEventListener("error", (event) => { say.error = event.message; });
const column = (n) => [...document.querySelectorAll("#studies tbody tr")].map((row) => row.cells[n].dataset.value);
const heads = document.querySelectorAll("#studies th button");
heads[3].click(); say.up = column(3);
heads[3].click(); say.down = column(3);
heads[0].click(); say.names = [...document.querySelectorAll("#studies tbody td:first-child")].map((c) => c.textContent);
document.querySelectorAll("details.study").forEach((one) => { one.open = true; });
document.querySelector("button[data-open]").click();
say.diffs = [...document.querySelectorAll("details.study")[0].querySelectorAll(".lineage details")].map((d) => d.open);
const first = document.querySelector("details.study");
const visible = () => [...first.querySelectorAll(".trial")].filter((trial) => trial.offsetParent).length;
say.all = visible();
document.querySelector('button[data-show="only-kept"]').click(); say.kept = visible();
const axes = () => [...document.querySelectorAll(".axis")].filter((a) => a.offsetParent).map((a) => a.className);
say.axes = [axes()];
document.getElementById("by-seconds").click(); say.axes.push(axes());
say.wide = document.documentElement.scrollWidth;
say.width = window.innerWidth;
say.background = getComputedStyle(document.body).backgroundColor;
document.body.dataset.probe = JSON.stringify(say);
"""


@pytest.fixture(scope="module")
def html() -> str:
    maker = Maker(np.random.default_rng(3), trials=30, curve_points=12)
    kinds = {"tpe": Kind(gain=0.5, crashes=0.3), "claude": Kind(usd=0.1, route="llm"), "random": Kind()}
    return page(maker.campaign(kinds, 3), "now", overlay=True)


def run(folder: Path, *arguments: str) -> tuple[str, str]:
    """(standard output, the browser's console)."""
    assert BROWSER is not None
    command = [BROWSER, *FLAGS, f"--user-data-dir={folder / 'profile'}", *arguments]
    home = os.environ | {"HOME": str(folder)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, env=home)
    return done.stdout, done.stderr


def probed(html: str, folder: Path, *arguments: str) -> dict[str, object]:
    """What the probe saw; asserts that the console stayed empty."""
    import base64
    import hashlib
    import html as entities
    import json

    digest = base64.b64encode(hashlib.sha256(PROBE.encode()).digest()).decode()
    allowed = html.replace("script-src ", f"script-src 'sha256-{digest}' ", 1)
    file = folder / "report.html"
    file.write_text(allowed.replace("</body>", f"<script>{PROBE}</script></body>"), encoding="utf-8")
    out, console = run(folder, "--dump-dom", "--virtual-time-budget=3000", *arguments, f"file://{file}")
    assert not re.findall(r"CONSOLE.*", console)
    found = re.search(r'data-probe="([^"]*)"', out)
    assert found, out[-500:]
    say: dict[str, object] = json.loads(entities.unescape(found.group(1)))
    assert "error" not in say
    return say


def test_tables_sort_details_open_and_the_axis_changes(html: str, tmp_path: Path) -> None:
    say = probed(html, tmp_path, "--window-size=1200,900")
    up = [float(value) for value in say["up"]]  # type: ignore[attr-defined]
    assert up == sorted(up)
    assert say["down"] == say["up"][::-1]  # type: ignore[index]
    assert say["names"] == sorted(say["names"])  # type: ignore[call-overload]
    assert say["diffs"]
    assert all(say["diffs"])  # type: ignore[arg-type]
    assert say["all"] == 31
    assert 2 <= say["kept"] < 31  # type: ignore[operator]
    assert say["axes"] == [["axis trials"], ["axis seconds"]]


def test_a_phone_scrolls_downwards_only(html: str, tmp_path: Path) -> None:
    say = probed(html, tmp_path, "--window-size=500,900")
    assert say["wide"] == say["width"]


def test_day_and_night(html: str, tmp_path: Path) -> None:
    """Two schemes, two backgrounds; the figures take their colours from the page."""
    from PIL import Image

    file = tmp_path / "report.html"
    file.write_text(html, encoding="utf-8")
    shades = []
    for scheme in ("1", "0"):  # light, dark
        picture = tmp_path / f"{scheme}.png"
        arguments = ["--window-size=800,900", f"--screenshot={picture}"]
        run(tmp_path, *arguments, f"--blink-settings=preferredColorScheme={scheme}", f"file://{file}")
        shades.append(Image.open(picture).convert("L").getpixel((5, 5)))
    assert shades[0] > 230
    assert shades[1] < 40


def test_a_broken_page_is_noticed(html: str, tmp_path: Path) -> None:
    """What the tests above rely on: script that the policy does not know is refused, and said so."""
    file = tmp_path / "report.html"
    file.write_text(html.replace("</body>", "<script>alert(1)</script></body>"), encoding="utf-8")
    _, console = run(tmp_path, "--dump-dom", "--virtual-time-budget=500", f"file://{file}")
    assert re.search(r"CONSOLE.*Content Security Policy", console)
