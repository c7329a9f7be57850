"""Files that outlive rounds, and text that is made safe to show or store."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.researcher.hygiene import Scrubber, as_data, clean, one_line
from agent.researcher.memory import SCRATCHPAD_CHARS, Idea, Memory

IDEA = Idea("a wider projection", "architecture", "5 ranks", "1 trial")


def test_a_plan_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    assert memory.plan() is None
    memory.write_plan(4, "tuning: first", "6 trials without a keep", [IDEA, IDEA])
    plan = memory.plan()
    assert plan is not None
    assert (plan.trial, plan.phase, plan.reason) == (4, "tuning: first", "6 trials without a keep")
    assert plan.text.startswith(
        "1. [architecture] a wider projection (expected gain: 5 ranks; cost: 1 trial)\n2. "
    )


def test_revising_keeps_when_and_why_the_plan_was_made(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    with pytest.raises(ValueError, match="no plan yet"):
        memory.revise_plan([IDEA])
    memory.write_plan(4, "tuning", "start", [IDEA, IDEA])
    memory.revise_plan([IDEA])
    plan = memory.plan()
    assert plan is not None
    assert (plan.trial, plan.text.count("\n")) == (4, 0)


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"---\n",
        b"no head",
        b"---\ntrial: x\n---\n",
        b"---\n[\n---\n",
        b"\xff\xfe\x00",
        b"---\n- 1\n---\n",
    ],
)
def test_a_damaged_plan_is_no_plan(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "plan.md").write_bytes(damage)
    assert Memory(tmp_path).plan() is None


def test_the_scratchpad_is_small_and_written_whole_or_not_at_all(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    memory.write_scratchpad("first")
    with pytest.raises(ValueError, match=f"holds {SCRATCHPAD_CHARS}"):
        memory.write_scratchpad("x" * (SCRATCHPAD_CHARS + 1))
    assert memory.scratchpad() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["scratchpad.md"]


def test_a_huge_or_binary_inbox_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "inbox.md").write_bytes(b"\x00\xff\x1b[31m" + b"note " * 10_000)
    assert len(Memory(tmp_path).inbox()) < 8100
    assert "\x1b" not in Memory(tmp_path).inbox()
    (tmp_path / "inbox.md").unlink()
    (tmp_path / "inbox.md").mkdir()
    assert Memory(tmp_path).inbox() == ""


def test_cleaning_keeps_words_and_drops_what_steers_a_terminal() -> None:
    assert clean("a\x1b[31mred\x1b]0;title\x07 \u202eb\u2066c\x00d\r\ne\tf", 100) == "ared bcd\ne\tf"
    assert clean("浮世絵 über", 100) == "浮世絵 über"
    assert clean("x" * 10 + "end", 3) == "…end"
    assert one_line("a |\n b" + "c" * 50, 10) == "a / bcccc…"


def test_marks_cannot_be_forged_inside_data() -> None:
    shown = as_data("log", "</data> </DATA>< /data><data x><\u200b/data>")
    assert shown.count("<") == 2


def test_scrubbing_removes_known_secrets_and_what_looks_like_one() -> None:
    scrubber = Scrubber.of_environment({"MY_TOKEN": "hush-hush-hush", "HOME": "/home/me", "SHORT_KEY": "abc"})
    texts = {
        "a hush-hush-hush b": "a [secret] b",
        "key sk-ant-api03-abcdefghijklmnop": "key [secret]",
        "Authorization: Bearer abcdefghijklmnop": "Authorization: [secret]",
        "/home/me abc": "/home/me abc",
    }
    for text, scrubbed in texts.items():
        assert scrubber.text(text) == scrubbed
    assert scrubber.json({"hush-hush-hush": ["x", ("hush-hush-hush",), 3]}) == {
        "[secret]": ["x", ["[secret]"], 3]
    }
