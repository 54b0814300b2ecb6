"""What is refused before a server starts, what it is started with, and what its log is read as."""

import json
import socket
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from models import server_log
from models.errors import BadModel, PortTaken, ServerFailed
from models.hardware import Hardware, detect_hardware
from models.processor import AVX2, AVX512_BF16, Processor
from models.server import VllmServer, check_model
from models.server_settings import (
    ServerConfig,
    cached_token_bytes,
    child_environment,
    default_served_name,
    kv_cache_bytes,
    model_length,
    served_dtype,
    server_arguments,
    server_command,
    server_environment,
)

NATIVE = Processor("EPYC", AVX512_BF16, AVX512_BF16)
EMULATING = Processor("EPYC", AVX2, AVX2)
CPU = Hardware(gpus=(), cores=(0, 1), memory_gib=20.0, processor=NATIVE)
OLDER_CPU = replace(CPU, processor=EMULATING)
GPU = Hardware(("GPU 0: NVIDIA H200 (UUID: GPU-1)",), tuple(range(16)), memory_gib=100.0, processor=EMULATING)


def model_folder(folder: Path, config: object = None, leave_out: str = "") -> Path:
    """The files of a model, as far as the checks look at them."""
    folder.mkdir()
    files = {"config.json": json.dumps(config or {"max_position_embeddings": 2048}), "model.safetensors": ""}
    for name, text in (files | {"tokenizer.json": "{}"}).items():
        if name != leave_out:
            (folder / name).write_text(text)
    return folder


def test_a_whole_model_folder_and_a_hub_id_pass(tmp_path: Path) -> None:
    check_model(str(model_folder(tmp_path / "lab")))
    check_model("HuggingFaceTB/SmolLM2-135M-Instruct")  # pragma: allowlist secret


@pytest.mark.parametrize(
    ("leave_out", "line"),
    [
        ("config.json", "{} is not a Hugging Face model folder: it has no config.json"),
        ("model.safetensors", "{} has no weights: no *.safetensors file beside its config.json"),
        ("tokenizer.json", "{} has no tokenizer: no tokenizer.json, tokenizer.model or vocab.json"),
    ],
)
def test_an_incomplete_folder_is_refused(tmp_path: Path, leave_out: str, line: str) -> None:
    folder = model_folder(tmp_path / "lab", leave_out=leave_out)
    with pytest.raises(BadModel) as error:
        check_model(str(folder))
    assert str(error.value) == line.format(folder)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadModel) as error:
        check_model("./nowhere")
    assert str(error.value) == "no model folder ./nowhere; give a Hugging Face folder or a hub id such as org/name"
    t5 = model_folder(tmp_path / "t5", {"model_type": "t5", "is_encoder_decoder": True})
    with pytest.raises(BadModel, match=r"t5 is a t5 model; vLLM serves decoder-only models"):
        check_model(str(t5))
    with pytest.raises(BadModel, match=r"config\.json is a file; give the Hugging Face folder"):
        check_model(str(t5 / "config.json"))
    (t5 / "config.json").write_text("{")
    with pytest.raises(BadModel, match=r"config\.json cannot be read: Expecting"):
        check_model(str(t5))


def test_a_taken_port_is_named_before_anything_starts(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "lab")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with (
            pytest.raises(PortTaken) as error,
            VllmServer(ServerConfig(model=str(folder), port=port), tmp_path / "server.log"),
        ):
            pass
    assert str(error.value) == (
        f"port {port} on 127.0.0.1 cannot be used (Address already in use); choose another one, or leave port out "
        "to have a free one picked"
    )
    assert not (tmp_path / "server.log").exists()


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ValidationError, match="max_len"):
        ServerConfig(model="lab", max_len=5)  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="65535"):
        ServerConfig(model="lab", port=70000)


def test_the_command_line_on_a_cpu(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "lab")
    config = ServerConfig(model=str(folder), extra_args=("--seed", "3"))
    assert server_command(config, default_served_name(str(folder)), 8123, CPU) == [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)),
        *("--served-model-name", "lab", "--host", "127.0.0.1", "--port", "8123", "--dtype", "auto"),
        *("--generation-config", "vllm", "--disable-uvicorn-access-log", "--max-model-len", "2048"),
        *("--enforce-eager", "--max-num-seqs", "256", "--kv-cache-memory-bytes", str(2 * 2**30)),
        *("--no-enable-chunked-prefill", "--distributed-executor-backend", "uni"),
        *("--max-num-batched-tokens", "4096", "--seed", "3"),
    ]


def value_of(option: str, command: list[str]) -> str:
    return command[command.index(option) + 1]


SMALL = {"num_hidden_layers": 4, "num_attention_heads": 4, "hidden_size": 128, "max_position_embeddings": 256}


def test_where_bfloat16_is_emulated_the_server_computes_and_caches_in_float32(tmp_path: Path) -> None:
    config = ServerConfig(model=str(model_folder(tmp_path / "lab", SMALL)))
    native, emulated = (server_command(config, "lab", 8123, machine) for machine in (CPU, OLDER_CPU))
    assert [value_of("--dtype", command) for command in (native, emulated)] == ["auto", "float32"]
    cache = [int(value_of("--kv-cache-memory-bytes", command)) for command in (native, emulated)]
    assert cache[1] == 2 * cache[0]
    assert value_of("--dtype", server_command(config, "lab", 8123, GPU)) == "auto"
    assert served_dtype(ServerConfig(model="org/name"), OLDER_CPU) == "float32"


@pytest.mark.parametrize("arguments", [("--dtype", "bfloat16"), ("--seed", "1", "--dtype=bfloat16")])
def test_a_dtype_that_somebody_named_is_served_and_counted(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    folder = str(model_folder(tmp_path / "lab", SMALL))
    for config in (ServerConfig(model=folder, extra_args=arguments), ServerConfig(model=folder, dtype="bfloat16")):
        command = server_command(config, "lab", 8123, OLDER_CPU)
        assert value_of("--dtype", command) == served_dtype(config, OLDER_CPU) == "bfloat16"
        assert int(value_of("--kv-cache-memory-bytes", command)) == 2 * 256 * (256 + 128) * 4 * 2 * 128 * 2


def test_a_model_too_large_for_float32_or_quantised_keeps_its_own_dtype(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "large", SMALL | {"dtype": "bfloat16"})
    with (folder / "model.safetensors").open("wb") as weights:
        weights.truncate(8 * 2**30)  # a sparse file: 16 GiB in float32
    config = ServerConfig(model=str(folder))
    assert served_dtype(config, OLDER_CPU) == "auto"
    assert served_dtype(config, replace(OLDER_CPU, memory_gib=64.0)) == "float32"
    quantised = model_folder(tmp_path / "small", SMALL | {"quantization_config": {"quant_method": "gptq"}})
    assert served_dtype(ServerConfig(model=str(quantised)), OLDER_CPU) == "auto"


def test_a_gpu_needs_no_cpu_settings() -> None:
    assert server_arguments(GPU, 2048) == ["--max-model-len", "2048"]
    assert server_environment(GPU) == {}
    assert GPU.describe == "1 x NVIDIA H200"


def test_a_long_context_is_cut_on_a_cpu_only(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text('{"max_position_embeddings": 131072}')
    assert model_length(file, CPU) == 4096
    assert model_length(file, GPU) == 131072
    file.write_text("{}")
    assert model_length(file, CPU) is None


def test_the_environment_holds_no_keys_and_no_telemetry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("QCRD_TEACHER_API_KEY", "OPENAI_API_KEY", "VLLM_API_KEY"):
        monkeypatch.setenv(name, "sk-planted")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    environment = child_environment(str(tmp_path), CPU)
    assert "sk-planted" not in environment.values()
    assert (environment["VLLM_NO_USAGE_STATS"], environment["DO_NOT_TRACK"]) == ("1", "1")
    assert environment["OMP_NUM_THREADS"] == "2"
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in child_environment("org/name", CPU)


def test_many_cores_leave_their_binding_and_processes_to_vllm() -> None:
    many = replace(CPU, cores=tuple(range(16)))
    assert server_environment(many)["VLLM_CPU_OMP_THREADS_BIND"] == "auto"
    assert "OMP_NUM_THREADS" not in server_environment(many)
    assert "--distributed-executor-backend" not in server_arguments(many, 2048)


@pytest.mark.parametrize(("memory", "expected"), [(0.5, 1), (20.0, 2), (64.0, 8), (1000.0, 16)])
def test_the_cache_takes_an_eighth_of_the_memory(memory: float, expected: int) -> None:
    assert kv_cache_bytes(memory, 4096, None) == kv_cache_bytes(memory, None, 10) == expected * 2**30
    assert kv_cache_bytes(memory, 4096, 10**6) == expected * 2**30


def test_the_cache_of_a_small_model_holds_every_sequence_and_not_much_more(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    config = {"num_hidden_layers": 4, "num_attention_heads": 4, "hidden_size": 128}
    file.write_text(json.dumps(config))
    assert cached_token_bytes(file, "auto") == 4 * 2 * 128 * 2
    assert cached_token_bytes(file, "float32") == 4 * 2 * 128 * 4
    file.write_text(json.dumps(config | {"num_key_value_heads": 2, "head_dim": 64}))
    assert cached_token_bytes(file, "bfloat16") == 4 * 2 * 2 * 64 * 2
    assert 256 * 256 * 2048 < kv_cache_bytes(64.0, 256, 2048) < 4 * 256 * 256 * 2048


def test_a_model_that_does_not_say_how_large_it_is_gets_the_larger_cache(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text('{"n_layer": 12, "n_head": 12, "n_embd": 768}')
    assert cached_token_bytes(file, "auto") is None


def test_this_machine_has_cores_and_memory() -> None:
    found = detect_hardware()
    assert found.cores
    assert found.memory_gib > 0
    assert found.describe


LOG = """\
(APIServer pid=7) INFO 11-21 07:31:50 [api_utils.py:286] non-default args: {'port': 1}
(EngineCore pid=8) INFO 11-21 07:32:08 [core.py:133] Initializing a V1 LLM engine (v0.32.0)
/site-packages/torch.py:139: FutureWarning: `reduce_op` is deprecated
(EngineCore pid=8) ERROR 11-21 07:32:09 [core.py:900] EngineCore failed to start.
(EngineCore pid=8) ERROR 11-21 07:32:09 [core.py:900] Traceback (most recent call last):
(EngineCore pid=8) ERROR 11-21 07:32:09 [core.py:900]   File "core.py", line 8, in load
(EngineCore pid=8) ERROR 11-21 07:32:09 [core.py:900] ValueError: Model architectures ['Foo'] are not supported for now.
(APIServer pid=7) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""


def test_the_log_tells_the_root_cause() -> None:
    assert (
        server_log.last_words(LOG.splitlines()) == "ValueError: Model architectures ['Foo'] are not supported for now."
    )
    usage = "usage: api_server.py [options]\napi_server.py: error: unrecognized arguments: --foo"
    assert server_log.last_words(usage.splitlines()) == "api_server.py: error: unrecognized arguments: --foo"
    assert server_log.last_words(["INFO 11-21 07:31:50 [a.py:1] Shutting down", ""]) == "Shutting down"
    assert server_log.last_words([]) == "nothing in its log"


def test_the_log_tells_what_a_start_is_doing(tmp_path: Path) -> None:
    assert server_log.phase([]) == "importing vLLM"
    assert server_log.phase(LOG.splitlines()[:1]) == "reading the model's configuration"
    assert server_log.phase(LOG.splitlines()) == "starting the engine"
    assert server_log.tail(tmp_path / "none.log", 0) == []


def test_a_start_that_dies_gives_the_reason_and_the_log_in_one_line(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "lab")
    # "python -m vllm..." with an argument it does not know: dies after its imports
    config = ServerConfig(model=str(folder), extra_args=("--no-such-argument",))
    log_file = tmp_path / "logs" / "server.log"
    said: list[str] = []
    with pytest.raises(ServerFailed) as error:
        VllmServer(config, log_file, on_progress=lambda text, _: said.append(text)).start()
    assert str(error.value) == (
        "vLLM's server died while starting: api_server.py: error: unrecognized arguments: --no-such-argument - "
        f"log: {log_file}"
    )
    assert said[0] == "importing vLLM"


def test_a_log_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "lab")
    (tmp_path / "logs").write_text("a file where a folder should be")
    log_file = tmp_path / "logs" / "server.log"
    with pytest.raises(ServerFailed) as error:
        VllmServer(ServerConfig(model=str(folder)), log_file).start()
    assert str(error.value) == f"cannot write the server's log {log_file}: File exists"


def test_without_a_compiler_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert server_environment(CPU)["TORCHDYNAMO_DISABLE"] == "1"
