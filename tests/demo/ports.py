"""Where a test's own server can listen."""

from __future__ import annotations

import random
import socket
from contextlib import suppress


def free_port() -> int:
    """A port of this machine that nobody listens on.

    Not one that the system would give: it may give the same to whoever asks next, for the way to
    another server, before the test's own server listens.
    """
    while True:
        port = random.randrange(20_000, 30_000)  # Linux gives those from 32768 on
        with socket.socket() as s, suppress(OSError):
            s.bind(("127.0.0.1", port))
            return port
