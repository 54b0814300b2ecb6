"""vLLM's OpenAI server as a child process: started, watched, started again when it dies, and never left behind.

    with VllmServer(ServerConfig(model="models/lab"), log_file=Path("server.log")) as server:
        teacher = Teacher(TeacherConfig(base_url=server.base_url, model=server.served_name), sampling,
                          recover=server.ensure_alive)

The process tree is: this process -> `models/watchdog.py` -> API server -> engine -> workers. The watchdog ends all
below it when this process ends in whatever way, kill -9 included (see there), so nothing here handles signals.
"""

import asyncio
import http.client
import importlib.util
import json
import logging
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from models import server_log
from models.errors import BadModel, PortTaken, ServerFailed
from models.hardware import Hardware, detect_hardware
from models.server_settings import ServerConfig, child_environment, default_served_name, server_command
from models.watchdog import Watched

logger = logging.getLogger(__name__)

Progress = Callable[[str, float], None]  # (what the server is doing, seconds since the start)

LOOK_S = 0.25  # between two checks of a starting or unresponsive server
AILING_S = 30.0  # a running server that does not answer /health for so long is started again
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


class VllmServer:
    """A running vLLM server; start and stop it with `with`. Use it from one process only.

    Args:
        config: what to serve, and how.
        log_file: where the server's output goes; appended to, its folder is made.
        on_progress: called about once a second while the server starts; during a restart from another thread.
        hardware: what to start it for; None looks at the machine.

    Attributes:
        served_name: the model's name in requests.
        port: where it listens; the same after a restart. 0 before the first start when none was given.
        restarts: how often it was started again.
    """

    def __init__(
        self,
        config: ServerConfig,
        log_file: Path,
        on_progress: Progress | None = None,
        hardware: Hardware | None = None,
    ) -> None:
        self.config = config
        self.log_file = log_file
        self.served_name = config.served_name or default_served_name(config.model)
        self.port = config.port or 0
        self.restarts = 0
        self._on_progress = on_progress
        self._hardware = hardware
        self._watched: Watched | None = None
        self._log_offset = 0  # where the present start's output begins
        self._lock = threading.Lock()  # one start or check at a time
        self._stopped = False
        self._leave = threading.Event()  # ends every wait at once

    @property
    def base_url(self) -> str:
        """The base URL for an OpenAI client."""
        return f"http://{self.config.host}:{self.port}/v1"

    @property
    def watchdog_pid(self) -> int | None:
        """Pid of the process that everything else of the server descends from; None when it is not running."""
        return self._watched.process.pid if self._watched and self._watched.process.poll() is None else None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Starts the server and waits until it answers.

        Raises:
            BadModel: the model cannot be served.
            PortTaken: the port given is in use.
            ServerFailed: vLLM is not installed, or the server died or took too long; names the log.
        """
        check_model(self.config.model)
        if importlib.util.find_spec("vllm") is None:
            raise ServerFailed("vLLM is not installed in this environment: run `make setup`, or give a teacher's URL")
        if self.config.port is None:
            self.port = free_port(self.config.host)
        else:
            check_port(self.config.host, self.config.port)
        with self._lock:
            self._stopped = False
            self._leave.clear()
            self._start_and_wait()

    def stop(self) -> None:
        """Ends the server and everything it started; returns when the port is free. May be called twice."""
        self._stopped = True
        self._leave.set()
        with self._lock:
            self._end()

    async def ensure_alive(self) -> bool:
        """Checks whether the server answers, and restarts it if it died; a teacher's `recover`.

        Returns:
            True: it answers. False: it is being stopped.

        Raises:
            ServerFailed: it died more often than `max_restarts`, or could not be started again.
        """
        try:
            return await asyncio.to_thread(self._ensure_alive)
        except asyncio.CancelledError:
            # Only the awaiting is cancelled, not the thread; a start in it would hold up the whole exit.
            self._leave.set()
            raise

    def _ensure_alive(self) -> bool:
        with self._lock:
            self._leave.clear()  # before the look at _stopped: `stop` sets the two in the other order
            if self._stopped:
                return False
            why = self._ailment()
            if why is None:
                return not self._leave.is_set()
            died = f"vLLM's server {why}: {server_log.last_words(self._log())}"
            if self.restarts >= self.config.max_restarts:
                self._end()
                raise ServerFailed(
                    f"{died} - it was started again {self.restarts} times already (max_restarts), log: {self.log_file}"
                )
            self.restarts += 1
            logger.warning("%s; restart %d of %d", died, self.restarts, self.config.max_restarts)
            self._end()
            self._start_and_wait()
            return not self._leave.is_set()

    def _ailment(self) -> str | None:
        """Why the server has to be started again; None when it answers or is being stopped."""
        deadline = time.monotonic() + AILING_S
        while not self._leave.is_set():
            if self.watchdog_pid is None:
                return self._how_it_ended()
            status = self._get_status("/health")
            if status == 200:
                return None
            if status is not None and status >= 500:
                return f"lost its engine (health {status})"
            if time.monotonic() > deadline:
                return f"did not answer for {AILING_S:.0f} s"
            self._leave.wait(LOOK_S)
        return None

    def _how_it_ended(self) -> str:
        code = self._watched.process.returncode if self._watched else None
        if code is None or code < 0:
            return "lost its watchdog"
        return f"was ended by signal {code - 128}" if code > 128 else f"ended with code {code}"

    def _start_and_wait(self) -> None:
        hardware = self._hardware or detect_hardware()
        try:
            self.log_file.parent.mkdir(parents=True, exist_ok=True)
            self.log_file.touch()
            self._log_offset = self.log_file.stat().st_size
        except OSError as error:
            raise ServerFailed(f"cannot write the server's log {self.log_file}: {error.strerror}") from None
        with self.log_file.open("ab") as log:
            self._watched = Watched(
                server_command(self.config, self.served_name, self.port, hardware),
                stdout=log,
                stderr=subprocess.STDOUT,
                env=child_environment(self.config.model, hardware),
            )
        try:
            self._wait_until_healthy()
        except BaseException:  # Ctrl-C while starting included
            self._end()
            raise

    def _wait_until_healthy(self) -> None:
        started = time.monotonic()
        told = -1.0
        while not self._leave.is_set():
            seconds = time.monotonic() - started
            if self.watchdog_pid is None:
                words = server_log.last_words(self._log())
                if "address already in use" in words.lower():
                    raise PortTaken(_port_taken(self.config.host, self.port))
                raise ServerFailed(f"vLLM's server died while starting: {words} - log: {self.log_file}")
            if self._get_status("/health") == 200:
                return
            if seconds > self.config.startup_timeout_s:
                raise ServerFailed(
                    f"vLLM's server did not start within {self.config.startup_timeout_s:.0f} s (startup_timeout_s); "
                    f"it was {server_log.phase(self._log())} - log: {self.log_file}"
                )
            if self._on_progress is not None and seconds - told >= 1.0:
                told = seconds
                self._on_progress(server_log.phase(self._log()), seconds)
            self._leave.wait(LOOK_S)
        self._end()  # nobody waits for it any more

    def _end(self) -> None:
        if self._watched is not None:
            self._watched.end()
            self._watched = None

    def _log(self) -> list[str]:
        return server_log.tail(self.log_file, self._log_offset)

    def _get_status(self, path: str) -> int | None:
        """Status of a GET; None where nothing answers within 5 s. Plain http.client: no proxy gets in between."""
        connection = http.client.HTTPConnection(self.config.host, self.port, timeout=5.0)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()


def check_model(model: str) -> None:
    """Refuses what vLLM could not serve, before the half minute that finding out would take.

    Raises:
        BadModel: no such folder, or one without config.json, weights or tokenizer, or an encoder-decoder model.
    """
    folder = Path(model).expanduser()
    if not folder.exists():
        if HUB_ID.fullmatch(model) and not model.startswith("."):
            return  # an id on the hub: vLLM fetches it, or says that it cannot
        raise BadModel(f"no model folder {model}; give a Hugging Face folder or a hub id such as org/name")
    if not folder.is_dir():
        raise BadModel(f"{model} is a file; give the Hugging Face folder that holds config.json and the weights")
    config_file = folder / "config.json"
    if not config_file.is_file():
        raise BadModel(f"{model} is not a Hugging Face model folder: it has no config.json")
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise BadModel(f"{config_file} cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise BadModel(f"{config_file} is not a JSON object")
    if config.get("is_encoder_decoder"):
        kind = config.get("model_type", "encoder-decoder")
        raise BadModel(f"{model} is a {kind} model; vLLM serves decoder-only models (Llama, Qwen, SmolLM2 ...)")
    if not any(any(folder.glob(pattern)) for pattern in ("*.safetensors", "*.gguf")):
        pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
        found = f"; {pickles[0]} is a pickle, which may run code when it is read" if pickles else ""
        raise BadModel(f"{model} has no weights: no *.safetensors file beside its config.json{found}")
    if not any(
        (folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json", "tekken.json")
    ):
        raise BadModel(f"{model} has no tokenizer: no tokenizer.json, tokenizer.model or vocab.json")


def free_port(host: str) -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def check_port(host: str, port: int) -> None:
    """Raises PortTaken when something listens on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that linger do not count
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortTaken(_port_taken(host, port, error.strerror)) from None


def _port_taken(host: str, port: int, why: str | None = "Address already in use") -> str:
    return (
        f"port {port} on {host} cannot be used ({why}); choose another one, or leave port out to have a free one picked"
    )
