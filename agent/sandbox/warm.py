"""What a run wants preloaded enters; the fork server that has it leaves, started, kept or replaced as needed."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping, Sequence

from agent.sandbox.base import Preload
from agent.sandbox.forkserver import ForkServer, ForkServerFailed

# load a core. A run that has the machine for itself makes 1; between the two, what is decided stays
_CROWDED, _QUIET = 1.25, 1.1


class Warmth:
    """Owns one fork server. Safe to use from several threads."""

    def __init__(self) -> None:
        self._server: ForkServer | None = None
        self._lock = threading.Lock()
        self._crowded = False

    def prepare(self, preload: Preload, environment: Mapping[str, str]) -> ForkServer:
        """The server that has this, or will have; another one is ended.

        OpenMP reads when its threads are to spin and when to sleep as it is loaded, that is here: on a machine that
        others use too they sleep (docs/performance.md), unless `environment` says otherwise.
        """
        with self._lock:
            load = os.getloadavg()[0] / (os.cpu_count() or 1)
            self._crowded = load > (_QUIET if self._crowded else _CROWDED)
            wanted = {**({"OMP_WAIT_POLICY": "PASSIVE"} if self._crowded else {}), **environment}
            if self._server is not None and not self._server.fits(preload, wanted):
                self._server.close()
                self._server = None
            if self._server is None:
                self._server = ForkServer(preload, wanted)
            return self._server

    def server(self, command: Sequence[str], preload: Preload, environment: Mapping[str, str]) -> ForkServer:
        """A server that is ready to run `command`. Raises ForkServerFailed."""
        if command[0] != sys.executable or len(command) < 2 or not command[1].endswith(".py"):
            raise ForkServerFailed(f"{' '.join(command[:2])} is not this Python with a script")
        server = self.prepare(preload, environment)
        server.wait()
        return server

    def close(self) -> None:
        """Ends the server; the next use starts another one."""
        with self._lock:
            if self._server is not None:
                self._server.close()
                self._server = None

    def __reduce__(self) -> tuple[type[Warmth], tuple[()]]:
        return Warmth, ()  # in another process, another server
