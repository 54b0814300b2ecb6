"""A process that was started for another one ends with it."""

import os
import signal
import subprocess
import sys

import psutil  # type: ignore[import-untyped,unused-ignore]
import pytest

STARTED = """
import subprocess, sys, time
from flows.prefect.lifetime import end_with_this_process
child = subprocess.Popen(["sleep", "300"], start_new_session=True)
end_with_this_process(child.pid, group={group})
print(child.pid, flush=True)
time.sleep(300)
"""


@pytest.mark.parametrize("group", [True, False])
def test_a_server_does_not_outlive_a_killed_command(group: bool) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STARTED.format(group=group)], stdout=subprocess.PIPE, text=True
    ) as command:  # fmt: skip
        assert command.stdout
        server = psutil.Process(int(command.stdout.readline()))
        assert server.is_running()
        os.kill(command.pid, signal.SIGKILL)
    server.wait(timeout=20)
