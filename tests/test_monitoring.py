"""The files in monitoring/ use what there is, and Prometheus can read them."""

import json
import re
import shutil
import subprocess
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from tests.test_metrics import documented

ROOT = Path(__file__).parents[1]
RULES = ROOT / "monitoring" / "alerts.yaml"
DASHBOARD: dict[str, Any] = json.loads((ROOT / "monitoring" / "grafana-dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def expressions() -> list[str]:
    """Return what the dashboard asks Prometheus for, its variables filled in."""
    found = [target["expr"] for panel in PANELS for target in panel["targets"]]
    found += [each["expr"] for each in DASHBOARD["annotations"]["list"]]
    fill = {"$job": "turbod", "$instance": "localhost:8080", "$__rate_interval": "5m"}
    for name, value in fill.items():
        found = [expression.replace(name, value) for expression in found]
    return found


def series() -> set[str]:
    """Return the names of all series that there are."""
    parts = {"histogram": ("_bucket", "_sum", "_count")}
    return {name + part for name, kind in documented() for part in parts.get(kind, ("",))}


def promtool(*arguments: str) -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not here: apt-get install prometheus")
    said = subprocess.run([found, *arguments], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout + said.stderr
    return said.stdout


def test_promtool_reads_the_alerts() -> None:
    count = RULES.read_text().count("- alert: ")
    assert f"SUCCESS: {count} rules found" in promtool("check", "rules", str(RULES))


def test_promtool_reads_what_the_dashboard_asks_for(tmp_path: Path) -> None:
    rules = [
        {"record": f"turbod:panel:{number}", "expr": expression}
        for number, expression in enumerate(expressions())
    ]
    file = tmp_path / "rules.json"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"SUCCESS: {len(rules)} rules found" in promtool("check", "rules", str(file))


def test_alerts_and_dashboard_use_only_what_is_documented() -> None:
    text = "\n".join([RULES.read_text(), *expressions()])
    assert not set(re.findall(r"\bturbod_\w+", text)) - series()


TARGET = 'job="turbod", instance="localhost:8080"'
# Series, as promtool writes them a minute, and when an alert fires and when it does not.
HARD_CASES = {
    "a gap told before the first look, after three hours": (
        "TurbodGap",
        {
            "turbod_upstream_gaps_total{}": "0x9 stale _x179 1x99",
            "turbod_start_time_seconds{}": "100x9 stale _x179 11000x99",
        },
        {5: False, 195: True, 215: True, 225: False},
    ),
    "as many gaps as the process before told": (
        "TurbodGap",
        {"turbod_upstream_gaps_total{}": "1x199", "turbod_start_time_seconds{}": "5x99 6x99"},
        {50: False, 105: True, 125: True, 135: False},
    ),
    "more connections than a reload allows from now on": (
        "TurbodAboveBound",
        {
            'turbod_bound_used_items{what="connections"}': "900x300",
            'turbod_bound_limit_items{what="connections"}': "1000x99 100x200",
        },
        {50: False, 250: False},
    ),
    "more connections than were ever allowed": (
        "TurbodAboveBound",
        {
            'turbod_bound_used_items{what="connections"}': "900x99 1300x200",
            'turbod_bound_limit_items{what="connections"}': "1000x300",
        },
        {50: False, 200: True},
    ),
    "a disk for six sealed hours, which does not hold a plain one": (
        "TurbodDiskSoonFull",
        {
            'turbod_archive_room_seconds{what="disk"}': "300000x59 21600x59",
            "turbod_disk_free_bytes{}": "5e9x59 3e8x59",
            "turbod_log_disk_bytes{}": "0+8e6x59 0+8e6x59",
        },
        {50: False, 90: True},
    ),
}


@pytest.mark.parametrize("case", HARD_CASES)
def test_alerts_fire_when_they_should_and_not_before_or_after(tmp_path: Path, case: str) -> None:
    alert, series, expected = HARD_CASES[case]
    inputs = [
        {"series": name.replace("}", f", {TARGET}}}").replace("{, ", "{"), "values": values}
        for name, values in series.items()
    ]
    checks = [
        {
            "expr": f'group(ALERTS{{alertname="{alert}", alertstate="firing"}})',
            "eval_time": f"{minute}m",
            "exp_samples": [{"labels": "{}", "value": 1}] if fires else [],
        }
        for minute, fires in expected.items()
    ]
    test = {"interval": "1m", "input_series": inputs, "promql_expr_test": checks}
    file = tmp_path / "test.json"
    file.write_text(
        json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [test]})
    )
    promtool("test", "rules", str(file))


def test_every_alert_says_how_bad_it_is_what_is_and_what_to_do() -> None:
    for rule in re.split(r"(?m)^ +- alert: ", RULES.read_text())[1:]:
        name = rule.partition("\n")[0]
        assert re.search(r"labels: \{severity: (page|ticket)\}", rule), name
        assert re.search(r'summary: ".*\{\{ \$labels\.(instance|host) \}\}.*"', rule), name
        assert re.search(r'todo: ".+"', rule), name


def test_every_alert_stands_in_the_docs_and_no_other() -> None:
    named = re.findall(r"(?m)^ +- alert: (\w+)$", RULES.read_text())
    text = (ROOT / "docs" / "metrics.md").read_text()
    assert sorted(re.findall(r"(?m)^\| `(Turbod\w+)` \|", text)) == sorted(named)


def test_only_of_rates_nothing_is_drawn_as_0() -> None:
    """Beside seconds that are left it would be read as none left."""
    with_0 = [expression for expression in expressions() if "vector(0)" in expression]
    assert all(expression.startswith("rate(") for expression in with_0), with_0


def test_panels_of_the_dashboard_do_not_overlap() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    for one, other in combinations([panel["gridPos"] for panel in DASHBOARD["panels"]], 2):
        assert (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        ), (one, other)
        assert one["x"] + one["w"] <= 24
