"""Two runs that start at once never share the port of a temporary Prefect server."""

import socket
import subprocess
import sys
from pathlib import Path

from flows.prefect.embedded import hold_port

HOLD = "import sys; from flows.prefect.embedded import hold_port; print(hold_port(int(sys.argv[1])))"


def held_by_another_process(port: int) -> bool:
    command = [sys.executable, "-c", HOLD, str(port)]
    done = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True)
    return done.stdout.strip() == "True"


def test_a_port_is_held_for_a_server_of_this_process_and_from_others() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        assert not hold_port(port)
    assert held_by_another_process(port), "it is free, and is again when that process has ended"
    assert hold_port(port)
    assert not hold_port(port)
    assert not held_by_another_process(port)

    with socket.socket() as server:  # as asyncio and uvicorn make theirs
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        server.listen()
        with socket.create_connection(("127.0.0.1", port), timeout=5), server.accept()[0]:
            pass
        assert not held_by_another_process(port)
    assert not held_by_another_process(port), "a server may be started again"
