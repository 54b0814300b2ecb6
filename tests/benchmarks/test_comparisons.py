"""The comparisons that docs/results.md names can be run as they are."""

from pathlib import Path

import pytest

from flows.config.compare import load_comparison

FILES = sorted((Path(__file__).parents[2] / "benchmarks" / "compare").glob("*.yaml"))


def test_there_are_some() -> None:
    assert FILES


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_variant_is_a_configuration(file: Path) -> None:
    config, base = load_comparison(file)
    assert config.baseline in config.variants
    assert base["dataset"]["name"]
    assert f"qcrd compare benchmarks/compare/{file.name}" in file.read_text(encoding="utf-8")
