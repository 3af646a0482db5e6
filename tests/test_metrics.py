"""The form of `/metrics`: what Prometheus' own tools say of it, and what docs/metrics.md does."""

import re
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from tests.one_daemon import running
from turbod import report

ROOT = Path(__file__).parents[1]


async def metrics(data: Path) -> str:
    async with running(data) as daemon:
        return report.metrics(daemon.snapshot()).decode()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a daemon says that talks to nobody."""
    return trio.run(metrics, tmp_path_factory.mktemp("data"))


def documented() -> list[tuple[str, str]]:
    """Return the names and types of docs/metrics.md."""
    text = (ROOT / "docs" / "metrics.md").read_text()
    return re.findall(
        r"(?m)^\| `(turbod_\w+)` \| (counter|gauge|histogram) \| [^|]+ \|[^|\n]*\|$", text
    )


def test_every_metric_stands_in_the_docs_with_its_type_and_no_other(page: str) -> None:
    said = re.findall(r"(?m)^# TYPE (\w+) (\w+)$", page)
    assert sorted(documented()) == sorted(said)


def test_no_page_names_a_metric_that_is_not_there() -> None:
    parts = {"counter": ("",), "gauge": ("",), "histogram": ("", "_bucket", "_sum", "_count")}
    known = {name + part for name, kind in documented() for part in parts[kind]}
    for page in ROOT.glob("docs/*.md"):
        pattern = r"`(turbod_[a-z_]+_(?:total|bytes|seconds|items|state|left|hours|fault))\b"
        assert not set(re.findall(pattern, page.read_text())) - known, page


def test_prometheus_parses_it(page: str) -> None:
    families = list(text_string_to_metric_families(page))
    assert len(families) == len(documented())
    for family in families:
        assert family.documentation.endswith("."), family.name
        for sample in family.samples:
            assert sample.value >= 0 or family.name.endswith("lag_seconds"), sample


def test_promtool_finds_nothing_to_mend(page: str) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not here: apt-get install prometheus")
    said = subprocess.run(
        [promtool, "check", "metrics"], input=page, capture_output=True, text=True, check=False
    )
    assert (said.returncode, said.stdout + said.stderr) == (0, "")


def test_buckets_rise_to_the_count(page: str) -> None:
    for family in text_string_to_metric_families(page):
        if family.type != "histogram":
            continue
        buckets = [each.value for each in family.samples if each.name.endswith("_bucket")]
        counts = [each.value for each in family.samples if each.name.endswith("_count")]
        size = len(buckets) // max(len(counts), 1)
        for number, count in enumerate(counts):
            mine = buckets[number * size : (number + 1) * size]
            assert mine == sorted(mine)
            assert mine[-1] == count


def test_whatever_is_bounded_has_its_bound_beside_it(page: str) -> None:
    found = {
        family.name: {sample.labels["what"]: sample.value for sample in family.samples}
        for family in text_string_to_metric_families(page)
        if family.name.startswith("turbod_bound_")
    }
    for unit in ("bytes", "items"):
        used, limit = found[f"turbod_bound_used_{unit}"], found[f"turbod_bound_limit_{unit}"]
        assert used.keys() == limit.keys()
        assert all(used[what] <= limit[what] for what in used)
    text = (ROOT / "docs" / "metrics.md").read_text()
    for whats in found.values():
        assert all(f"`{what}`" in text for what in whats)


async def test_status_is_json_with_histograms_in_short(tmp_path: Path) -> None:
    async with running(tmp_path) as daemon:
        told = msgspec.json.decode(msgspec.json.encode(report.status(daemon.snapshot())))
    assert told["log"]["store_seconds"] == {"count": 0, "mean": None, "p50": None, "p99": None}
    assert told["process"]["open_files"] > 3
    assert told["process"]["late"] == {}
