"""An archive that cannot be used from the first moment: one line says why, live is served."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.archive_faults import Race, racing
from tests.acceptance.process import connected
from tests.acceptance.settling import until

HOURS = 3
NOWHERE = {"archive": "s3://turbod-nobody-made-this/archive"}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


def silent(race: Race) -> None:
    race.proxy.stalls = True


def read_only(race: Race) -> None:
    race.proxy.only, race.proxy.answer = "PUT", (403, "AccessDenied")


def forbidden(race: Race) -> None:
    race.proxy.answer = (403, "AccessDenied")


async def start(race: Race) -> None:
    """Start turbod, and follow it from the first event on."""
    await race.turbod.start()
    await connected(race.simulation)
    race.live.append(await race.follow())


@pytest.mark.parametrize(
    ("begin", "words"),
    [
        (silent, "not done within 5 s"),
        (read_only, "no permission: the access keys need s3:PutObject"),
        (forbidden, "no permission: the access keys need s3:ListBucket"),
        (lambda race: race.proxy.go_down(), "refused: does the server run?"),
    ],
    ids=["silent", "read-only", "forbidden", "refused"],
)
async def test_a_bucket_that_cannot_be_used_yet(
    tmp_path: Path, begin: Callable[[Race], None], words: str
) -> None:
    """The line says what is wrong; with that put right, all is stored without a restart."""
    async with racing(tmp_path, "rclone", start=False) as race:
        begin(race)
        await start(race)
        await race.hours(HOURS + 1)
        await race.waits(HOURS)
        await says(race, words)
        race.check_delivered()
        race.check_kept()
        race.proxy.be_good()
        race.proxy.come_up()
        await race.check()


async def test_a_bucket_that_nobody_made(tmp_path: Path) -> None:
    """The line says that there is none."""
    async with racing(tmp_path, "rclone", start=False, options=NOWHERE) as race:
        await start(race)
        await race.hours(HOURS + 1)
        await race.waits(HOURS)
        await says(race, "there is no such bucket: make it, or correct --archive")
        race.check_delivered()
        race.check_kept()


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("AWS_SECRET_ACCESS_KEY", "check the access keys"),
        ("AWS_ACCESS_KEY_ID", "check the access keys"),
    ],
)
async def test_wrong_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, words: str
) -> None:
    """The line says so, and none of the keys; hours wait, and are stored with the right ones."""
    wrong = "wrong/keys+0123456789"
    async with racing(tmp_path, "rclone", start=False) as race:
        with monkeypatch.context() as patched:
            patched.setenv(key, wrong)
            await start(race)
        await race.hours(HOURS + 1)
        await race.waits(HOURS)
        await says(race, words)
        assert wrong not in race.turbod.output
        assert await race.turbod.stop() == 0
        await race.turbod.start()
        await race.check()


async def says(race: Race, words: str) -> None:
    """Wait until /status says so; fail unless one line of the log does, and no flood."""

    async def does_it() -> bool:
        return words in str((await race.archiver())["fault"])

    await until(does_it, seconds=20, what=f"/status says: {words}")
    lines = race.told("archive_failing")
    assert any(words in line for line in lines), lines
    assert len(lines) <= 3, lines
    assert (await race.turbod.get("/readyz"))[0] == 200
