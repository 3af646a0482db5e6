"""What `turbod check` says of the AppView, and of clocks."""

import time
from email.utils import formatdate

import httpx
import pytest

from tests.acceptance.process import free_port
from tests.archive.scripted_s3 import Request, answer, scripted_s3
from turbod.check import appview, clock
from turbod.check.finding import Finding
from turbod.check.network_verdicts import ClockSeen, judge_clock
from turbod.config import ArchiveSettings, S3Settings, Settings
from turbod.simulation.world import Simulation, simulated


async def found(url: str) -> Finding:
    [finding] = await appview.look(Settings(appview=url))
    return finding


async def test_one_profile_and_one_post_are_asked_for_and_no_budget_is_said_to_be_named() -> None:
    async with simulated(hosts=1) as simulation:
        finding = await found(simulation.appview.url)
        assert finding.mark == "ok"
        assert "names no budget, so 10 calls a second by the settings" in finding.found
        assert paths(simulation) == ["app.bsky.actor.getProfiles", "app.bsky.feed.getPosts"]


async def test_its_own_budget_is_told() -> None:
    async with simulated(hosts=1) as simulation:
        simulation.appview.budget = (3000, 300.0)
        finding = await found(simulation.appview.url)
        assert finding.mark == "ok"
        assert "budget 3000 calls in 5 min, 2998 left" in finding.found


async def test_a_budget_that_is_used_up_is_a_warning_and_not_asked_for_twice() -> None:
    async with simulated(hosts=1) as simulation:
        simulation.appview.fail_next.append("429")
        finding = await found(simulation.appview.url)
        assert finding.mark == "warning"
        assert len(paths(simulation)) == 1


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        ("500", "HTTP 500"),
        ("502", "HTTP 502"),
        ("drop", "disconnected"),
        ("not_json", "not an AppView's"),
        ("wrong_shape", "not an AppView's"),
        ("silent", "no answer within 0.3 s"),
    ],
)
async def test_an_appview_that_gives_no_views_is_a_fault(
    failure: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appview, "CALL_SECONDS", 0.3 if failure == "silent" else 5.0)
    async with simulated(hosts=1) as simulation:
        simulation.appview.fail_next.append(failure)
        finding = await found(simulation.appview.url)
        assert finding.mark == "fault"
        assert words in finding.found


async def test_nobody_there_is_a_fault() -> None:
    finding = await found(f"http://127.0.0.1:{free_port()}")
    assert finding.mark == "fault"


def paths(simulation: Simulation) -> list[str]:
    return [call.path.rpartition("/")[2] for call in simulation.appview.statistics.calls]


@pytest.mark.parametrize(
    ("seconds", "mark"),
    [(0, "ok"), (3, "ok"), (-3, "ok"), (9, "fault"), (-9, "fault"), (86400, "fault")],
)
async def test_a_clock_more_than_five_seconds_off_is_a_fault(
    seconds: float, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "_synchronised", lambda: True)

    def script(_: Request) -> bytes:
        return answer("404 Not Found", Date=formatdate(time.time() - seconds, usegmt=True))

    async with scripted_s3(script) as server:
        [finding] = await clock.look(Settings(appview=server.endpoint))
        assert finding.mark == mark
        if mark == "fault":
            assert ("ahead of" if seconds > 0 else "behind") in finding.found


async def test_the_bucket_s_server_is_compared_with_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_synchronised", lambda: True)

    def late(_: Request) -> bytes:
        return answer("403 Forbidden", Date=formatdate(time.time() - 60, usegmt=True))

    def right(_: Request) -> bytes:
        return answer("404 Not Found", Date=formatdate(time.time(), usegmt=True))

    async with scripted_s3(late) as bucket, scripted_s3(right) as server:
        [finding] = await clock.look(
            Settings(
                appview=server.endpoint,
                archive=ArchiveSettings(location="s3://turbod-test/a"),
                s3=S3Settings(endpoint=bucket.endpoint),
            )
        )
        assert finding.mark == "warning"
        assert "disagree" in finding.todo


def test_what_the_kernel_says_counts_where_no_server_says_more() -> None:
    here = [ClockSeen("a", -0.5, 0.7)]
    assert judge_clock(here, is_synchronised=True)[0].mark == "ok"
    assert judge_clock(here, is_synchronised=None)[0].mark == "ok"
    assert judge_clock(here, is_synchronised=False)[0].mark == "warning"
    assert judge_clock([], is_synchronised=True)[0].mark == "warning"


def test_the_kernel_is_asked_without_harm() -> None:
    assert clock._synchronised() in {True, False, None}


@pytest.mark.parametrize(
    "headers",
    [{}, {"Date": ""}, {"Date": "x"}, {"Date": "Thu, 99 Nov 2026 08:00:00 GMT"}, {"Age": "5"}],
)
def test_a_date_that_is_none_tells_nothing(headers: dict[str, str]) -> None:
    assert clock.read_date(httpx.Headers(headers)) is None


def test_an_answer_from_a_cache_is_as_old_as_it_says() -> None:
    headers = {"Date": formatdate(1_795_000_000, usegmt=True), "Age": "300"}
    assert clock.read_date(httpx.Headers(headers)) == 1_795_000_300
