"""A prompt goes to the model, a Reply comes back: with retries that end and dollars that are counted.

The SDK's own retries are off, because it sleeps for as long as a server's Retry-After says. Here pauses are
bounded and the clock and the sleep are given, so that tests never sleep.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import anthropic

from agent.researcher.failures import LLMRefused, LLMStopped, LLMUnavailable, Trouble, understand
from agent.researcher.prices import CHARS_PER_TOKEN, Usage, dollars, worst_case
from agent.researcher.settings import LLMSettings
from agent.researcher.waiting import Stopped, until_stopped

Block = dict[str, Any]
NO_KEY = (
    "no key for the LLM: set {env} (llm.key_env), or run a local model with llm=local. "
    "Without any LLM: searcher=playbook walks the published sequence of changes"
)


@dataclass(frozen=True)
class Request:
    """What varies from call to call. `web_searches` is how many this call may make."""

    system: Sequence[Block]
    tools: Sequence[Block]
    messages: Sequence[Block]
    web_searches: int = 0


@dataclass(frozen=True)
class Reply:
    """What came back. `unreadable` says why it cannot be used at all; then there is no content."""

    content: tuple[Block, ...] = ()
    stop_reason: str | None = None
    usage: Usage = field(default_factory=Usage)
    usd: float = 0.0
    seconds: float = 0.0
    unreadable: str = ""

    def calls(self) -> list[Block]:
        """Its calls of our tools, as {"type", "id", "name", "input"}."""
        return [block for block in self.content if block.get("type") == "tool_use"]


@dataclass
class Bill:
    """What a call that is under way has cost so far: the usage its stream began with, and what has come since."""

    begun: Usage = field(default_factory=Usage)
    characters: int = 0

    def usage(self) -> Usage:
        """The output is estimated: a stream says how much it was only at its end."""
        return replace(self.begun, output=max(self.begun.output, round(self.characters / CHARS_PER_TOKEN)))


class Client:
    """One model. `notice` hears of every failed call: (attempt, reason, pause in seconds, dollars).

    The dollars are what a stream had been billed for when it broke. `stop` ends every wait at once, that for a
    reply, too.
    """

    def __init__(
        self,
        settings: LLMSettings,
        key: str | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
        stop: threading.Event | None = None,
        notice: Callable[[int, str, float, float], None] = lambda attempt, reason, pause, usd: None,
    ) -> None:
        self.settings = settings
        self._clock, self._notice, self._stop = clock, notice, stop or threading.Event()
        self._sleep = sleep or self._stop.wait
        self._api = connected(settings, key)

    def worst_case(self, request: Request) -> float:
        """Dollars that one call can cost at most."""
        return worst_case(self._body(request), self.settings.prices, request.web_searches)

    def send(self, request: Request) -> Reply:
        """One reply. Raises LLMUnavailable after the last attempt; LLMRefused and LLMStopped at once."""
        body, attempt = self._body(request), 0
        while True:
            attempt += 1
            bill = Bill()
            outcome = self._heard(body, bill, attempt)
            if isinstance(outcome, Reply):
                return outcome
            pause = self._pause(attempt, outcome.wait)
            self._notice(attempt, outcome.reason, pause, outcome.usd)
            if outcome.kind == "refused":
                raise LLMRefused(f"{self.settings.model}: {outcome.reason}")
            if attempt == self.settings.backoff.attempts:
                raise LLMUnavailable(f"{self.settings.model}: {attempt} attempts failed: {outcome.reason}")
            self._sleep(pause)

    def _pause(self, attempt: int, asked: float | None) -> float:
        backoff = self.settings.backoff
        if attempt == backoff.attempts:
            return 0.0
        return min(max(backoff.first_seconds * 2 ** (attempt - 1), asked or 0.0), backoff.longest_seconds)

    def _heard(self, body: dict[str, Any], bill: Bill, attempt: int) -> Reply | Trouble:
        try:
            return until_stopped(lambda: self._attempt(body, bill), self._stop)
        except Stopped:
            usd = dollars(bill.usage(), self.settings.prices)
            self._notice(attempt, "the study was stopped during the call", 0.0, usd)
            raise LLMStopped("the study was stopped during a call of the model") from None

    def _attempt(self, body: dict[str, Any], bill: Bill) -> Reply | Trouble:
        start = self._clock()
        try:
            message = self._streamed(body, start, bill) if self.settings.stream else self._whole(body)
        except Exception as error:
            trouble = understand(error)
            if trouble is None:
                raise
            usd = dollars(bill.usage(), self.settings.prices)
            if trouble.kind != "unreadable":
                return replace(trouble, usd=usd)
            seconds = self._clock() - start
            return Reply(usage=bill.usage(), usd=usd, seconds=seconds, unreadable=trouble.reason)
        return self._reply(message, self._clock() - start)

    def _whole(self, body: dict[str, Any]) -> Mapping[str, Any]:
        message = self._api.messages.create(**body)
        if not isinstance(message, anthropic.types.Message):
            raise TimeoutError("the server answered with a page, not a message")
        return message.to_dict(mode="python", warnings=False)

    def _streamed(self, body: dict[str, Any], start: float, bill: Bill) -> Mapping[str, Any]:
        with self._api.messages.stream(**body) as stream:
            for event in stream:
                if event.type == "message_start":
                    message: Any = event.message
                    begun = message.to_dict(mode="python", warnings=False).get("usage") or {}
                    bill.begun = Usage.from_reply(begun)
                if event.type == "content_block_delta":
                    bill.characters += _characters(event.delta)
                if self._stop.is_set():
                    raise Stopped  # nobody listens any more; closing the stream ends its costs
                if self._clock() - start > self.settings.timeout_seconds:
                    raise TimeoutError(
                        f"the reply was not complete after {self.settings.timeout_seconds:g} s"
                    )
            whole = stream.get_final_message()
        if whole.stop_reason is None:
            raise TimeoutError("the stream ended before the reply did")
        return whole.to_dict(mode="python", warnings=False)

    def _reply(self, message: Mapping[str, Any], seconds: float) -> Reply:
        usage = Usage.from_reply(message.get("usage") or {})
        usd = dollars(usage, self.settings.prices)
        content = message.get("content")
        if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
            return Reply(usage=usage, usd=usd, seconds=seconds, unreadable="the reply has no content blocks")
        return Reply(tuple(content), message.get("stop_reason"), usage, usd, seconds)

    def _body(self, request: Request) -> dict[str, Any]:
        settings = self.settings
        body: dict[str, Any] = {
            "model": settings.model,
            "max_tokens": settings.max_tokens,
            "system": list(request.system),
            "tools": list(request.tools),
            "messages": list(request.messages),
            # a forced tool is refused while the model thinks; a reply without a call is a failed try
            "tool_choice": {"type": "auto"},
        }
        if settings.thinking is not None:
            body["thinking"] = {"type": settings.thinking}
        if settings.effort is not None:
            body["output_config"] = {"effort": settings.effort}
        return body


def _characters(delta: Any) -> int:
    """Of text, a call's input, or a thought."""
    return max(len(getattr(delta, name, None) or "") for name in ("text", "partial_json", "thinking"))


def connected(settings: LLMSettings, key: str | None) -> anthropic.Anthropic:
    """The SDK's client; nothing is sent yet. Raises LLMRefused where a key is needed and none is set."""
    no_key = NO_KEY.format(env=settings.key_env)
    if settings.key_needed and settings.base_url and not key:
        raise LLMRefused(no_key)
    try:
        api = anthropic.Anthropic(
            # without an explicit key the SDK would look for Anthropic's, and send it to any server
            api_key=key or (None if settings.key_needed else "none"),
            base_url=settings.base_url,
            max_retries=0,
            timeout=anthropic.Timeout(settings.timeout_seconds, connect=15.0),
        )
    except anthropic.CredentialsError as error:
        raise LLMRefused(f"{no_key} ({error})") from error
    if not (api.api_key or api.auth_token or api.credentials):
        raise LLMRefused(no_key)
    return api
