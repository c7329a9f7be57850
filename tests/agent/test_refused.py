"""Words that Hydra refuses: one line that says what was given and what there is, from the config that is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.composition import CompositionError, composed_file

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("searcher=tpee", "searcher=tpee: did you mean tpe? there are centaur, "),
        ("budget=huge", "budget=huge: there are cpu, demo, five_minutes, smoke"),
        ("sandbox=_limit", "sandbox=_limit: there are bubblewrap, none"),
        ("budget.sekonds=3", "budget.sekonds: unknown key; did you mean budget.seconds"),
        ("sercher=tpe", "sercher: unknown key; did you mean searcher"),
        ("zzz=1", "zzz: unknown key; --cfg job shows all of them"),
        ("budget=[1", "budget=[1: "),
    ],
)
def test_a_word_that_is_refused(word: str, said: str) -> None:
    with pytest.raises(CompositionError) as refused:
        composed_file(CONFIGS, "sweep", word.split())
    assert str(refused.value).startswith(said)
    assert "\n" not in str(refused.value)
