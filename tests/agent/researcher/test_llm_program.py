"""program.md: what people write in it is enforced, or refused with the place and the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.researcher.program import ProgramError, ProgramFile, parse_program, read_program
from tests.agent.researcher.study import ROOT

TEXT = (ROOT / "agent/program.md").read_text()


def test_the_shipped_program_has_five_phases_in_order() -> None:
    program = read_program(ROOT / "agent/program.md")
    names = [phase.name for phase in program.phases]
    assert names == ["tuning", "expert mechanism", "architecture", "advanced training", "bold ideas"]
    assert not program.phases[0].edits
    assert program.phases[-1].web_search
    assert [program.phase(number, 42).name for number in (0, 14, 15, 22, 23, 28, 29, 35, 36, 41, 99)] == [
        "tuning",
        "tuning",
        "expert mechanism",
        "expert mechanism",
        "architecture",
        "architecture",
        "advanced training",
        "advanced training",
        "bold ideas",
        "bold ideas",
        "bold ideas",
    ]


def test_even_the_smallest_budget_reaches_every_kind_of_phase() -> None:
    program = read_program(ROOT / "agent/program.md")
    reached = [program.phase(number, 6).name for number in range(6)]
    assert len(set(reached)) == 5


def test_the_answer_is_not_given_away() -> None:
    words = TEXT.lower()
    for spoiler in ("clamp", "logit_scale", "logit scale", "14.3", "temperature", "160.93"):
        assert spoiler not in words


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("max_changes: 2", "max_change: 2", "phases[0]: unknown key 'max_change'; did you mean max_changes?"),
        ("share: 0.35", "share: 0.4", "the phases' shares sum to 1.05; expected 1"),
        ("share: 0.35", "share: lots", "phases[0]: share='lots': expected a share in (0, 1]"),
        ("edits: false", "edits: no thanks", "edits='no thanks': expected true or false"),
        ("overrides: true\n    edits: false", "overrides: false\n    edits: false", "nothing could be tried"),
        ("plateau: 6", "plateau: 0", "plateau=0: expected a whole number from 1"),
        ("plateau: 6\n", "", "plateau is missing"),
        ("conclude_after: 0.8", "conclude_after: true", "conclude_after=True: expected a share"),
        ("name: architecture", "name: tuning", "two phases have the same name"),
        ("categories: [", "categories: [[", "yaml block cannot be read"),
        ("```yaml", "```", "0 yaml blocks; expected exactly one"),
        ("### 1. Tuning", "```yaml\na: 1\n```", "2 yaml blocks; expected exactly one"),
    ],
)
def test_mistakes_are_named(old: str, new: str, said: str) -> None:
    assert old in TEXT
    with pytest.raises(ProgramError) as raised:
        parse_program(TEXT.replace(old, new, 1), "program.md")
    assert said in str(raised.value)
    assert str(raised.value).startswith("program.md: ")


def test_errors_of_yaml_give_the_line_of_the_file() -> None:
    broken = TEXT.replace("    share: 0.35", "   share: 0.35")
    line = 1 + broken[: broken.index("   share: 0.35")].count("\n")
    with pytest.raises(ProgramError, match=f"line {line}"):
        parse_program(broken)


def test_at_the_start_a_broken_program_is_an_error_later_the_last_good_one_holds(tmp_path: Path) -> None:
    path, heard = tmp_path / "program.md", []
    with pytest.raises(ProgramError, match="cannot be read"):
        ProgramFile(path, lambda event, what: None)
    path.write_text(TEXT)
    file = ProgramFile(path, lambda event, what: heard.append(event))
    path.write_text(TEXT.replace("plateau: 6", "plateau: six"))
    assert file.current().plateau == 6
    assert file.current().plateau == 6
    path.write_text(TEXT.replace("plateau: 6", "plateau: 4"))
    assert file.current().plateau == 4
    assert heard == ["program", "program refused, the last good one holds", "program changed"]
