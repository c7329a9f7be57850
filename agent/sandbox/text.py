"""Text of untrusted origin enters as bytes or str; text that a terminal and a prompt can bear leaves."""

from __future__ import annotations

import re

# A whole escape sequence goes, so that no "[31m" stays behind: CSI, OSC/DCS strings, two-byte ones.
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]{0,4096}(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*[0-~]"
)
# Control characters but tab and newline; soft hyphen; Arabic letter mark; zero-width and bidirectional
# marks; line and paragraph separators; invisible operators; surrogates; variation selectors; byte-order
# mark; interlinear marks; tags and supplementary selectors (used to hide text from people, not from models).
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\ud800-\udfff\ufe00-\ufe0f\ufeff\ufff0-\ufffb\U000e0000-\U000e0fff]"
)


def clean_text(text: bytes | str, limit: int = 20_000) -> str:
    """Drop escapes, control, bidirectional and invisible characters; keep the last `limit` characters.

    Bytes are read as UTF-8, what is not valid becoming U+FFFD. A carriage return becomes a new line, so a
    progress bar reads as lines and cannot overwrite what stands before it. Text that was cut begins with "…".
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", errors="replace")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = _INVISIBLE.sub("", _ESCAPES.sub("", text))
    return text if len(text) <= limit else "…" + text[len(text) - limit + 1 :]
