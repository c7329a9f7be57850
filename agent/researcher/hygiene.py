"""Text from runs, models and people goes in; what is safe to show, or to store, comes out.

Two dangers: a log that speaks to the model (a prompt injection), and a secret that ends up in a file. Logs
are therefore marked as data, with the marks themselves made impossible inside; secrets are cut out.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)")
MARK = re.compile(r"<(?=\s*/?\s*(?:data|note|system|human|assistant|instructions?)\b)", re.IGNORECASE)
KEYLIKE = re.compile(
    r"sk-[A-Za-z0-9_-]{16,}|(?i:bearer)\s+[A-Za-z0-9._~+/=-]{12,}|AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{20,}"
    r"|hf_[A-Za-z0-9]{20,}|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----",
    re.DOTALL,
)
# a frame is its line, and the deeper ones that quote the source; the first may be cut off at its beginning
LIBRARY_FRAMES = re.compile(
    r'(?:^ {1,9}File "[^"\n]{0,300}?/(?:site-packages|lib/python3[^/\n]{0,9})/[^"\n]{0,300}".*\n(?: {4,}.*\n)*)+',
    re.MULTILINE,
)
CARETS = re.compile(r"^ +[\^~]+ *\n", re.MULTILINE)
SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
HIDDEN = "[secret]"


def clean(text: str, most: int) -> str:
    """Printable text without terminal codes and invisible or direction-changing characters.

    Of a text longer than `most` characters the end is kept, where a log has its error.
    """
    text = ANSI.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    text = "".join(
        c for c in text if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn")
    )
    return text if len(text) <= most else "…" + text[-most:]


def one_line(text: str, most: int) -> str:
    """The same on one line, from its beginning; `|` separates columns in tables and is replaced."""
    line = " ".join(clean(text, 100_000).split()).replace("|", "/")
    return unmarked(line if len(line) <= most else line[: most - 1] + "…")


def unmarked(text: str) -> str:
    """No tag inside that could end the marks around it, or look like a message's frame."""
    return MARK.sub("‹", text)


def own_frames(log: str) -> str:
    """A log whose tracebacks have lost the frames of libraries, and the marks under the lines: what is left is
    the code that a proposal can change, and the error."""
    return LIBRARY_FRAMES.sub("  … (frames of libraries)\n", CARETS.sub("", log))


def as_data(name: str, text: str, most: int = 4000) -> str:
    """Text of unknown origin between marks that it cannot contain."""
    return f'<data name="{name}">\n{unmarked(clean(text, most))}\n</data>'


class Scrubber:
    """Cuts secrets out of what is stored: known ones, and whatever looks like a key."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        # the longest first, so that no part of one survives another's removal
        self.secrets = sorted({secret for secret in secrets if len(secret) >= 8}, key=len, reverse=True)

    @classmethod
    def of_environment(cls, environment: Mapping[str, str]) -> Scrubber:
        """Knows the value of every variable whose name says that it is secret."""
        return cls(value for name, value in environment.items() if SECRET_NAME.search(name))

    def text(self, text: str) -> str:
        for secret in self.secrets:
            text = text.replace(secret, HIDDEN)
        return KEYLIKE.sub(HIDDEN, text)

    def json(self, value: Any) -> Any:
        """The same for every text in nested JSON, names included."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(key)): self.json(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.json(item) for item in value]
        return value
