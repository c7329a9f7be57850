"""Steps and seconds used go in, the share of the budget comes out: whichever is nearer its end."""

from __future__ import annotations

import time
from collections.abc import Callable


class BudgetClock:
    """Training time of one fold. Set-up, evaluation, checkpoints and pauses do not count.

    `seconds` None: steps alone. The learning-rate schedule follows `share`, so a run that
    is cut by time anneals as fully as one that is cut by steps. `tick` is called before the time is read for
    a decision: processes that train together agree there on what `now` says (ranks.AgreedTime).
    """

    def __init__(
        self,
        max_steps: int,
        seconds: float | None,
        now: Callable[[], float] = time.perf_counter,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        self.max_steps, self.seconds, self._now = max_steps, seconds, now
        self.tick = tick
        self._used = 0.0
        self._since: float | None = None
        self._began: float | None = None

    def start(self, used: float = 0.0) -> None:
        """Starts counting, `used` seconds being spent already (a resumed run)."""
        self._used, self._since = used, self._now()
        self._began = self._since

    def pause(self) -> None:
        self._used, self._since = self.elapsed(), None

    def resume(self) -> None:
        if self._since is None:
            self._since = self._now()

    def elapsed(self) -> float:
        """Training seconds so far."""
        return self._used + (self._now() - self._since if self._since is not None else 0.0)

    def age(self) -> float:
        """Wall-clock seconds since `start`, pauses included; 0 before it."""
        return self._now() - self._began if self._began is not None else 0.0

    def share(self, step: int) -> float:
        """Share of the budget used when `step` begins, in [0, 1]."""
        by_steps = step / self.max_steps
        by_time = self.elapsed() / self.seconds if self.seconds else 0.0
        return min(max(by_steps, by_time), 1.0)

    def over(self, step: int) -> bool:
        """Whether step number `step` may not begin: nothing is left, or less than half of a step's time."""
        if step >= self.max_steps:
            return True
        if self.seconds is None:
            return False
        elapsed = self.elapsed()
        a_step = elapsed / step if step else 0.0
        return elapsed + a_step / 2 >= self.seconds
