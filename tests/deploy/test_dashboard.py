"""The Grafana dashboard and the scrape configuration: do they name what the exporter really serves?"""

import inspect
import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from flows.commands.metrics import metrics_command
from tasks.watching.prometheus import HomeCollector

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
COLUMNS = 24
"""Of Grafana's grid."""


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((DEPLOY / "grafana-dashboard.json").read_text(encoding="utf-8"))
    return content


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The exporter's metrics and their types."""
    home = tmp_path_factory.mktemp("home")
    registry = CollectorRegistry()
    registry.register(HomeCollector(home, str(home / "store")))
    text = generate_latest(registry).decode()
    return dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))


def expressions(dashboard: dict[str, Any]) -> list[str]:
    queries = [one["definition"] for one in dashboard["templating"]["list"] if one["type"] == "query"]
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]] + queries


def test_every_metric_of_a_panel_is_served(dashboard: dict[str, Any], metrics: dict[str, str]) -> None:
    named = {name for text in expressions(dashboard) for name in re.findall(r"qcrd_\w+", text)}
    assert named <= metrics.keys()
    assert len(named) >= 10
    assert all(re.findall(r"qcrd_\w+", text) for text in expressions(dashboard))


def test_names_and_types_follow_prometheus_conventions(metrics: dict[str, str]) -> None:
    for name, kind in metrics.items():
        assert name.startswith("qcrd_")
        assert name.endswith("_total") == (kind == "counter"), name


def test_grafana_can_import_it(dashboard: dict[str, Any]) -> None:
    assert re.fullmatch(r"[\w-]{1,40}", dashboard["uid"])
    assert dashboard["title"]
    assert dashboard["schemaVersion"] >= 36
    assert "id" not in dashboard, "Grafana gives it"
    [source] = [one for one in dashboard["templating"]["list"] if one["type"] == "datasource"]
    assert source["query"] == "prometheus"
    for panel in dashboard["panels"]:
        assert panel["type"] in ("stat", "bargauge", "timeseries")
        assert panel["title"]
        for part in (panel, *panel["targets"]):
            assert part["datasource"] == {"type": "prometheus", "uid": f"${{{source['name']}}}"}
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    variables = {one["name"] for one in dashboard["templating"]["list"]}
    assert {name for text in expressions(dashboard) for name in re.findall(r"\$(\w+)", text)} <= variables


def test_panels_have_their_own_number_and_place(dashboard: dict[str, Any]) -> None:
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        place = panel["gridPos"]
        assert min(place["x"], place["y"]) >= 0
        assert min(place["w"], place["h"]) > 0
        assert place["x"] + place["w"] <= COLUMNS
    for one, other in combinations([panel["gridPos"] for panel in panels], 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, (one, other)


def test_prometheus_asks_the_exporter_where_it_is() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text(encoding="utf-8"))
    [job] = config["scrape_configs"]
    port = inspect.signature(metrics_command).parameters["port"].default
    assert job["static_configs"] == [{"targets": [f"localhost:{port}"]}]
