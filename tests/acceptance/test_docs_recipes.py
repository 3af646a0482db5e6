"""What docs/archive.md shows is true of an archive: its reader by ranges, recipes, settings."""

import json
import os
import re
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest
import trio

from tests.archive.commands import files_below
from tests.archive.sealed import DIDS, HOUR, T0, make_archive
from tests.server.served_archive import serving_archive
from turbod import config

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs" / "archive.md"
POST = "app.bsky.feed.post"
# The command, at an hour of the day of which the examples speak.
COMMAND = f"""#!{sys.executable}
from turbod import cli
from turbod.archive.bulk import asking

asking._now_us = lambda: {T0 + 4 * HOUR}
cli.main()
"""


def block(language: str, word: str) -> str:
    """Return the page's one block in a language that has a word in it."""
    blocks = re.findall(rf"(?ms)^```{language}\n(.*?)^```", PAGE.read_text())
    [found] = [each for each in blocks if word in each]
    return str(found)


class Place:
    """A folder with an archive of three hours in `data/archive`, as the examples have it.

    Attributes:
        records: all that is in the archive, in order.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "data" / "archive").mkdir(parents=True)
        self.records = list(map(json.loads, make_archive(folder / "data" / "archive", [0, 1, 3])))
        command = folder / "bin" / "turbod"
        command.parent.mkdir()
        command.write_text(COMMAND)
        command.chmod(command.stat().st_mode | stat.S_IXUSR)

    def run(self, script: str) -> str:
        """Run lines of a shell; return what they print."""
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        return subprocess.run(
            ["sh", "-e", "-c", script],
            cwd=self.folder,
            env=os.environ | {"PATH": path, "PYTHONPATH": str(REPOSITORY)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    def posts(self, hours: Sequence[int]) -> list[dict[str, Any]]:
        """Return the posts of these hours after T0."""
        return [
            each
            for each in self.records
            if (each["cursor"] - T0) // HOUR in hours
            and each["message"].get("commit", {}).get("collection") == POST
        ]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """An archive as the examples have it."""
    return Place(tmp_path)


async def test_the_reader_reads_a_served_object_by_ranges(tmp_path: Path) -> None:
    """From a running turbod; of frames that have nothing of a DID, nothing is fetched."""
    names: dict[str, Any] = {}
    exec(block("python", "def read_index"), names)
    exec(block("python", "class Remote"), names)
    async with serving_archive(tmp_path, hours=(0,)) as (harness, archive):
        [name] = archive.names
        url = f"http://127.0.0.1:{harness.port}/archive/{name.key}"

        def read(**chosen: Any) -> tuple[list[int], int]:
            remote = _Counted(names["Remote"](url))
            return [record["cursor"] for record in names["records"](remote, **chosen)], remote.reads

        everything, reads = await trio.to_thread.run_sync(read)
        behind, fewer = await trio.to_thread.run_sync(lambda: read(after=everything[-2]))
        nobody, fewest = await trio.to_thread.run_sync(lambda: read(did="did:web:nobody.example"))
    assert (len(everything), everything[0], everything[-1]) == (120, name.first, name.last)
    assert behind == everything[-1:]
    assert nobody == []
    assert (fewest, fewer) == (3, 4)
    assert reads > fewer


class _Counted:
    """Counts the slices that are asked for."""

    def __init__(self, remote: Any) -> None:
        self.reads = 0
        self._remote = remote

    def __len__(self) -> int:
        return len(self._remote)

    def __getitem__(self, part: slice) -> Any:
        self.reads += 1
        return self._remote[part]


def test_zstdcat_and_jq(place: Place) -> None:
    for tool in ("zstdcat", "jq"):
        if subprocess.run(["which", tool], capture_output=True, check=False).returncode:
            pytest.skip(f"{tool} is not here")
    *counts, total = place.run(block("sh", "zstdcat")).splitlines()
    expected = Counter(each["did"] for each in place.posts([0]))
    assert {line.split()[1]: int(line.split()[0]) for line in counts} == expected
    assert int(total) == len(place.records)


def test_duckdb(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place.folder)
    with duckdb.connect() as database:
        rows = database.sql(block("sql", "read_json")).fetchall()
    accounts: dict[tuple[int, str | None], list[str]] = {}
    for each in place.records:
        commit = each["message"].get("commit", {})
        key = ((each["cursor"] - T0) // HOUR + 10, commit.get("collection"))
        accounts.setdefault(key, []).append(each["did"])
    assert {(int(row[0]), row[1]): row[2:] for row in rows} == {
        key: (len(dids), len(set(dids))) for key, dids in accounts.items()
    }


def test_pyarrow_reads_lines(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place.folder)
    names: dict[str, Any] = {}
    exec(block("python", "pa.json.read_json"), names)
    columns = ("cursor", "at_uri", "did", "time_us")
    expected = [{name: each[name] for name in columns} for each in place.records]
    assert names["table"].to_pylist() == expected


def test_pyarrow_reads_the_parquet_of_archive_get(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.run(block("sh", "--format parquet"))
    monkeypatch.chdir(place.folder)
    names: dict[str, Any] = {}
    exec(block("python", "pyarrow.dataset"), names)
    first = [each for each in place.records if each["cursor"] < T0 + HOUR]
    assert [row["cursor"] for row in names["rows"]] == [each["cursor"] for each in first]
    assert [json.loads(row["message"]) for row in names["rows"]] == [e["message"] for e in first]
    assert names["kinds"] == {"commit", "identity"}
    files = files_below(place.folder / "parquet")
    assert sum(pq.read_metadata(place.folder / "parquet" / f).num_rows for f in files) == 360


def test_turbod_archive_lists_fetches_and_verifies(place: Place) -> None:
    printed = place.run(block("sh", "turbod archive verify")).splitlines()
    assert [line.split()[0] for line in printed[1:4]] == [
        f"2026-11-20T{hour}" for hour in (10, 11, 13)
    ]
    assert printed[-1].endswith("360 records: all is whole")
    own = [each["at_uri"] for each in place.records if each["did"] == DIDS[0]]
    assert [line for line in printed if line.startswith("at://")] == own
    posts = (place.folder / "posts.jsonl").read_text().splitlines()
    assert [json.loads(line)["cursor"] for line in posts] == [
        each["cursor"]
        for each in place.records
        if each["cursor"] < T0 + 2 * HOUR and (each in place.posts([0, 1]) or _is_notice(each))
    ]
    assert len(files_below(place.folder / "hours", "*.jsonl")) == 3


def _is_notice(record: dict[str, Any]) -> bool:
    return bool(record["message"]["kind"] != "commit")


def test_every_example_of_settings_is_one(tmp_path: Path) -> None:
    examples = re.findall(r"(?ms)^```toml\n(.*?)^```", PAGE.read_text())
    assert len(examples) >= 4
    for text in examples:
        file = tmp_path / "turbod.toml"
        file.write_text(text.replace("BUCKET", "bucket").replace("ACCOUNT", "account"))
        settings = config.load({"config": str(file)}, {})
        assert settings.archive.location == "s3://bucket/PREFIX"
        assert settings.s3.endpoint or settings.s3.region


def test_the_policy_is_json_and_names_all_that_a_fault_may_ask_for() -> None:
    """Those that turbod names where it is refused."""
    policy = json.loads(block("json", "Statement"))
    statements = [each["Action"] for each in policy["Statement"]]
    actions = {each for part in statements for each in ([part] if isinstance(part, str) else part)}
    faults = (REPOSITORY / "turbod" / "archive" / "stores" / "s3_faults.py").read_text()
    assert actions == set(re.findall(r"s3:\w+", faults))
