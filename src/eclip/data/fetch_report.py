"""What a fetch of Ukiyo-eVG found, moved and missed: counts and names enter; a table for a person leaves."""

from collections.abc import Collection
from dataclasses import dataclass, field

from rich.markup import escape
from rich.table import Table

ANNOTATIONS = {
    "ukiyoe_vg_train_pgt_odvg.jsonl": "annotations/Ukiyo-eVG/refined/ukiyoe_vg_train_pgt_odvg.jsonl",
    "ukiyoe_vg_val_pgt_odvg.jsonl": "annotations/Ukiyo-eVG/refined/ukiyoe_vg_val_pgt_odvg.jsonl",
    "ukiyoe_vg_test_annotated.jsonl": "annotations/Ukiyo-eVG/ukiyoe_vg_test_annotated.jsonl",
}


@dataclass
class Report:
    """Filled in as the fetch goes on, so that it is right wherever the fetch ends."""

    annotations: dict[str, str] = field(default_factory=dict)  # file name -> where in the record it was found
    missing_annotations: list[str] = field(default_factory=lambda: list(ANNOTATIONS))
    unreadable_lines: int = 0
    named: int = 0
    present: int = 0
    fetched: int = 0
    missing: list[str] = field(default_factory=list)
    ambiguous: dict[str, list[str]] = field(default_factory=dict)  # name -> members of different content
    damaged: dict[str, str] = field(default_factory=dict)  # name -> what is wrong with it
    unsafe: list[str] = field(default_factory=list)  # names that would leave the image folder
    requests: int = 0
    received_bytes: int = 0

    @property
    def complete(self) -> bool:
        """Every annotation file and every print that they name is there."""
        return self.named > 0 and not self.missing_annotations and self.present + self.fetched == self.named

    def table(self) -> Table:
        """The counts, and the first few names of whatever is missing."""
        table = Table(title="Ukiyo-eVG", show_header=False, title_justify="left")
        for name in ANNOTATIONS:
            table.add_row(
                name, escape(self.annotations[name]) if name in self.annotations else "[red]missing"
            )
        table.add_row("prints named", f"{self.named:,}")
        table.add_row("already there", f"{self.present:,}")
        table.add_row("fetched", f"{self.fetched:,}")
        left = self.named - self.present - self.fetched
        table.add_row("not there", f"[red]{left:,}[/]" if left else "0")
        for label, names in (
            ("  not in the archive", self.missing),
            ("  ambiguous: one name, different prints", self.ambiguous),
            ("  damaged in the archive", self.damaged),
            ("  unsafe name, refused", self.unsafe),
        ):
            if names:
                table.add_row(label, _first_few(names))
        if self.unreadable_lines:
            table.add_row("annotation lines that name no file", f"[red]{self.unreadable_lines:,}[/]")
        table.add_row("transferred", f"{self.received_bytes / 1e6:,.1f} MB in {self.requests:,} requests")
        return table


def _first_few(names: Collection[str]) -> str:
    shown = ", ".join(escape(n if n.isprintable() else ascii(n)) for n in sorted(names)[:3])
    return f"[red]{len(names):,}[/] ({shown}{', …' if len(names) > 3 else ''})"
