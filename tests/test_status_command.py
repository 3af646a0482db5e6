"""`turbod status`: a running turbod's state in words, and as an exit code for who watches it."""

import argparse
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.acceptance.process import Turbod, free_port, serving
from tests.archive.scripted_s3 import Request, answer, scripted_s3
from turbod import bearer
from turbod.amounts import size, span
from turbod.config import ConfigError
from turbod.simulation.world import simulated
from turbod.status import command
from turbod.status.told import Archiver, Host, Part, Told, read
from turbod.status.words import faults, screen

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


PARTS = ("hydration", "appview", "cache", "log", "server", "process")


async def status(url: str | None = None) -> int:
    return await command.run(argparse.Namespace(url=url, config=None))


def told(**parts: Any) -> Told:
    found = read(msgspec.json.encode({"turbod": "0.1.0", **parts}))
    assert found is not None
    return found


async def changed_to(turbod: Turbod, code: int) -> None:
    """Wait until that is the exit code."""
    with trio.fail_after(20):
        while await status(f"http://127.0.0.1:{turbod.port}") != code:  # noqa: ASYNC110 - no event
            await trio.sleep(0.1)


async def test_a_turbod_that_is_well_is_exit_0_on_one_screen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with (
        simulated(rate=100) as simulation,
        serving(simulation, tmp_path / "data") as turbod,
    ):
        await changed_to(turbod, 0)
        capsys.readouterr()
        assert await status(f"127.0.0.1:{turbod.port}/status") == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) < 25
        assert not any(line.startswith("!") for line in lines)
        assert lines[0].startswith("turbod ")
        for host in simulation.jetstreams:
            assert any(host.url in line for line in lines)


async def test_a_fault_is_exit_3_and_told_before_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with (
        simulated(rate=100) as simulation,
        serving(simulation, tmp_path / "data") as turbod,
    ):
        simulation.appview.failures = {"503": 1.0}
        await changed_to(turbod, 3)
        capsys.readouterr()
        assert await status(f"http://127.0.0.1:{turbod.port}") == 3
        lines = capsys.readouterr().out.splitlines()
        assert lines[1].startswith("! appview")
        simulation.appview.failures = {}
        await changed_to(turbod, 0)


async def test_nobody_there_is_exit_1_and_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert await status(f"http://127.0.0.1:{free_port()}") == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "say where it runs" in said.err


@pytest.mark.parametrize(
    "said",
    [
        answer("200 OK", b"<html>hello</html>"),
        answer("200 OK", b"[]"),
        answer("200 OK", b'{"status":"fine"}'),
        answer("404 Not Found", b'{"turbod":"0.1.0"}'),
        answer("302 Found", b"", Location="http://127.0.0.1:1/"),
        b"SSH-2.0-OpenSSH_9.2\r\n",
    ],
)
async def test_what_is_no_turbod_is_exit_1(said: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    async with scripted_s3(lambda _: said) as server:
        assert await status(server.endpoint) == 1
    assert capsys.readouterr().err.count("\n") == 1


async def test_a_server_that_never_answers_is_exit_1_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(command, "ANSWER_SECONDS", 0.2)
    async with scripted_s3(lambda _: None) as server:
        assert await status(server.endpoint) == 1


async def test_a_token_comes_from_the_environment_and_is_in_no_word_of_ours(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def script(request: Request) -> bytes:
        if request.headers.get("authorization") == "Bearer turbod_right":
            return answer("200 OK", b'{"turbod":"0.1.0"}')
        return answer("401 Unauthorized", b'{"error":"AuthRequired"}')

    async with scripted_s3(script) as server:
        assert await status(server.endpoint) == 1
        assert bearer.VARIABLE in capsys.readouterr().err
        for token, code in (("turbod_wrong", 1), ("turbod_right", 0)):
            monkeypatch.setenv(bearer.VARIABLE, token)
            assert await status(server.endpoint) == code
            said = capsys.readouterr()
            assert token not in said.out + said.err
        monkeypatch.setenv(bearer.VARIABLE, "turbod_ü")
        with pytest.raises(ConfigError, match=bearer.VARIABLE) as caught:
            await status(server.endpoint)
        assert "ü" not in str(caught.value)


async def test_without_a_url_it_is_where_the_settings_listen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with scripted_s3(lambda _: answer("200 OK", b'{"turbod":"0.1.0"}')) as server:
        monkeypatch.setenv("TURBOD_LISTEN", f"0.0.0.0:{server.endpoint.rpartition(':')[2]}")
        assert await status() == 0


@pytest.mark.parametrize("url", ["ftp://a", "http://", "http://user:word@a", "x://"])
async def test_what_is_no_url_is_a_wrong_option(url: str) -> None:
    with pytest.raises(ConfigError, match="expected http://HOST:PORT"):
        await status(url)


# ---- what is told, and what it means


def test_one_that_tells_nothing_but_its_name_is_taken_as_it_is() -> None:
    assert faults(told()) == []
    assert screen(told(), url="http://a")[0] == "turbod 0.1.0 at http://a"


def test_keys_that_are_new_or_of_another_shape_do_no_harm() -> None:
    found = told(
        upstream="live",
        lag_seconds="soon",
        planets=9,
        hosts=[{"url": "ws://a", "state": "live", "mood": 1}, 7],
        archive={"archiver": {"state": "ok", "stored_hours": [1]}},
        log=[1, 2],
    )
    assert faults(found) == []
    assert any("ws://a: live" in line for line in screen(found, url="u"))


def any_part(kind: type[Part]) -> st.SearchStrategy[Any]:
    """Return any value for a part, and more often one with its names."""
    names = st.sampled_from([field.name for field in msgspec.structs.fields(kind)])
    return ANYTHING | st.dictionaries(names, ANYTHING)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            **{name: any_part(Told.__annotations__[name]) for name in PARTS},
            **dict.fromkeys(("now", "lag_seconds", "uptime_seconds", "upstream"), ANYTHING),
            "hosts": st.lists(any_part(Host), max_size=3) | ANYTHING,
            "archive": st.dictionaries(
                st.sampled_from(["archiver", "sealer", "history"]), any_part(Archiver)
            ),
        },
    )
)
def test_whatever_is_told_there_are_lines_that_can_be_printed(parts: dict[str, Any]) -> None:
    body = msgspec.json.encode({"turbod": "0.1.0", **parts})
    found = read(body)
    assert found is not None
    assert all(line.isprintable() for line in screen(found, url="u"))


@pytest.mark.parametrize(
    ("parts", "where"),
    [
        ({"upstream": "live"}, []),
        ({"upstream": "catching_up"}, []),
        ({"upstream": "stalled"}, ["upstream"]),
        ({"log": {"fault": "disk full"}}, ["log"]),
        ({"cache": {"fault": "disk full"}}, ["cache"]),
        ({"appview": {"down": True}}, ["appview"]),
        ({"archive": {"archiver": {"state": "failing", "fault": "away"}}}, ["archive"]),
        ({"archive": {"archiver": {"state": "full", "hours_left": 0.0}}}, ["archive"]),
        ({"archive": {"archiver": {"state": "ok", "hours_left": 5.0}}}, ["archive"]),
        ({"archive": {"archiver": {"state": "ok", "hours_left": 500.0}}}, []),
        ({"archive": {"sealer": {"fault": "disk full"}}}, ["sealing"]),
        ({"archive": {"history": {"fault": "away"}}}, ["history"]),
        (
            {
                "archive": {
                    "archiver": {"state": "failing", "fault": "x"},
                    "history": {"fault": "x"},
                }
            },
            ["archive"],
        ),
    ],
)
def test_what_counts_as_wrong(parts: dict[str, Any], where: list[str]) -> None:
    assert [name for name, _ in faults(told(**parts))] == where


def test_sizes_and_spans_are_in_words() -> None:
    assert [size(n) for n in (0, 999, 1000, 3_214_000_000)] == [
        *("0 bytes", "999 bytes", "1 kB", "3.21 GB"),
    ]
    assert [span(n) for n in (0.04, 9.96, 59, 60, 90, 3600, 7300, 86400 * 3.2, 86400 * 40)] == [
        *("0.04 s", "10 s", "59 s", "1 min", "1 min 30 s", "1 h", "2 h 1 min", "3 d 4 h", "40 d"),
    ]
