"""What is said before a server starts; that it samples is shown with a real one."""

from pathlib import Path

import pytest

from models.server_settings import ServerConfig
from tasks.teacher.session import _server


@pytest.mark.parametrize("asked", [{"dtype": "bfloat16"}, {"extra_args": ("--dtype", "bfloat16")}])
def test_a_dtype_that_the_processor_emulates_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: dict[str, object]
) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")  # whatever this machine has
    said: list[str] = []
    _server(ServerConfig.model_validate({"model": "org/name"} | asked), tmp_path, said.append)
    assert said == [
        "vLLM's --dtype is bfloat16, which this processor (AVX2) only emulates: sampling takes about 2 times as long "
        "as in float32. Set it to float32."
    ]
    _server(ServerConfig(model="org/name"), tmp_path, said.append)
    assert len(said) == 1, "what is chosen by itself is no news"
