"""The comparisons that docs/results.md names can be run as they are."""

from pathlib import Path

import pytest

from flows.config.compare import CompareConfig, load_comparison

FILES = sorted((Path(__file__).parents[2] / "benchmarks" / "compare").glob("*.yaml"))


def test_there_are_some() -> None:
    assert FILES


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_variant_is_a_configuration(file: Path) -> None:
    config, base = load_comparison(file)
    assert config.baseline in config.variants
    assert base["dataset"]["name"]
    assert f"qcrd compare benchmarks/compare/{file.name}" in file.read_text(encoding="utf-8")


def test_all_variants_of_a_seed_are_trained_before_the_next_seed() -> None:
    variants = {"dss": {"method": {"name": "dss"}}, "qcrd": {}}
    config = CompareConfig(base="lab", variants=variants, baseline="dss", seeds=3, shares=(0.5, 1.0))
    cells = config.all_cells()
    assert [(cell.share, cell.seed) for cell in cells[::2]] == [
        (share, seed) for share in (0.5, 1.0) for seed in range(3)
    ]
    assert [cell.variant for cell in cells] == ["dss", "qcrd"] * 6
    assert set(cells) == {cell for variant in variants for cell in config.cells(variant)}
