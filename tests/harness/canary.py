"""Listeners that count every connection they accept, by the local address that it was meant for.

Bound to the wildcard addresses: in a namespace whose routes call every address local, one listener is a canary on all.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable

Visit = Callable[[socket.socket], None]

TLS_PORTS = (443, 8443)
OTHER_PORTS = (22, 25, 53, 80, 110, 143, 389, 445, 2375, 3306, 5432, 5672, 6379, 8080, 8500, 9200, 10250, 11211, 27017)


class Canaries:
    """Counts of accepted connections; on `TLS_PORTS` each is handed to `visit`, elsewhere it is closed."""

    def __init__(self, visit: Visit | None = None, without: Iterable[int] = ()) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._listeners: list[socket.socket] = []
        for port in {*TLS_PORTS, *OTHER_PORTS} - {*without}:
            for family, anywhere in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
                listener = socket.create_server((anywhere, port), family=family, backlog=1024)
                self._listeners.append(listener)
                handler = visit if port in TLS_PORTS else None
                threading.Thread(target=self._accept, args=(listener, port, handler), daemon=True).start()

    def counts(self) -> dict[str, int]:
        """Accepted connections by `address port`, since the last call; what waits to be accepted is waited for."""
        while select.select(self._listeners, (), (), 0.02)[0]:
            time.sleep(0.005)
        time.sleep(0.02)  # accepted, and about to be counted
        with self._lock:
            counts = dict(self._counts)
            self._counts.clear()
        return counts

    def _accept(self, listener: socket.socket, port: int, visit: Visit | None) -> None:
        while True:
            connection, _ = listener.accept()
            with self._lock:
                self._counts[f"{connection.getsockname()[0]} {port}"] += 1
            if visit is None:
                connection.close()
            else:
                threading.Thread(target=visit, args=(connection,), daemon=True).start()
