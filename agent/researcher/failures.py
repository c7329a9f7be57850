"""An exception of the SDK goes in; what it means for the study comes out: wait, stop, or ask the model again.

The SDK's errors come in several shapes (measured with anthropic 2.12): a refused or dropped connection is an
APIConnectionError, but a stream that is cut off raises httpx2's own error; HTML with status 200 raises a bare
AssertionError when streamed and broken JSON a JSONDecodeError when not; an error in mid-stream is a plain
APIStatusError with status 200; numbers of 5,000 digits are a ValueError, deep nesting a RecursionError.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

import anthropic
import httpx2

from agent.searchers.base import SearcherStopped, SearcherUnavailable

Kind = Literal["transient", "refused", "unreadable"]
PERMANENT_STATUS = {400, 401, 402, 403, 404, 413, 422}
PERMANENT_TYPES = {
    "authentication_error",
    "billing_error",
    "invalid_request_error",
    "not_found_error",
    "permission_error",
    "request_too_large",
}
# error codes of a 429 that waiting does not cure
SPENT = ("spend_limit", "billing", "credit")


class LLMUnavailable(SearcherUnavailable):
    """The model cannot be reached after bounded retries. Pause, then ask again; nothing is charged."""


class LLMStopped(SearcherUnavailable):
    """A person stopped the study during a call. The round is repeated when the study goes on."""


class LLMRefused(SearcherStopped):
    """The server will not serve this study: key, credit, model or request. Stop; the study can be resumed."""


@dataclass(frozen=True)
class Trouble:
    """One failed call. `wait`: the pause the server asked for, in seconds, if any.

    `usd`: billed all the same.
    """

    kind: Kind
    reason: str
    wait: float | None = None
    usd: float = 0.0


def understand(error: Exception) -> Trouble | None:
    """None for an exception that no server can cause: a bug, which must be seen."""
    if isinstance(error, anthropic.APIStatusError):
        return _status(error)
    if isinstance(error, anthropic.CredentialsError):
        return Trouble("refused", f"credentials: {error}")
    if isinstance(error, anthropic.APIResponseValidationError | json.JSONDecodeError):
        return Trouble("transient", "the server answered with something that is no JSON message")
    if isinstance(error, anthropic.APIConnectionError | httpx2.HTTPError | TimeoutError):
        return Trouble("transient", f"{type(error).__name__}: {error}")
    if isinstance(error, AssertionError):
        return Trouble("transient", "the server's stream holds no message")
    if isinstance(error, RuntimeError) and "event order" in str(error):
        return Trouble("transient", "the server's stream is out of order")
    if isinstance(error, RecursionError | ValueError | OverflowError):
        return Trouble("unreadable", f"the reply cannot be decoded ({type(error).__name__})")
    return None


def _status(error: anthropic.APIStatusError) -> Trouble:
    said = error.api_message or error.message
    reason = f"{error.status_code} {error.type or type(error).__name__}: {' '.join(str(said).split())[:300]}"
    spent = error.status_code == 429 and any(word in (error.error_code or "") for word in SPENT)
    if spent or error.status_code in PERMANENT_STATUS or error.type in PERMANENT_TYPES:
        return Trouble("refused", reason)
    return Trouble("transient", reason, _retry_after(error.response))


def _retry_after(response: httpx2.Response) -> float | None:
    """Seconds; dates and nonsense count as nothing, since the back-off waits anyway."""
    try:
        seconds = float(response.headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if 0 < seconds < float("inf") else None
