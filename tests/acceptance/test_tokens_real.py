"""Tokens as an operator meets them: a real `turbod serve`, a file of tokens, and SIGHUP."""

import signal
from pathlib import Path

import pytest
import trio

from tests.acceptance.process import Turbod, serving
from tests.acceptance.settling import until
from tests.server.harness import Answer, exchange
from tests.server.people import ALICE, BOB, NAMES, by
from turbod import bearer
from turbod.client import Records, Refused, follow
from turbod.simulation.world import simulated

GUESSES = 4000
GUESSERS = 20
MEGABYTE = 1024 * 1024


def write(file: Path, *names: str) -> None:
    """Write the file of these people's tokens."""
    file.write_text(
        "".join(f'[{name}]\nsha256 = "{bearer.digest(NAMES[name]).hex()}"\n' for name in names)
    )


async def status(turbod: Turbod, token: str) -> int:
    """Ask for /status with a token."""
    async with await trio.open_tcp_stream("127.0.0.1", turbod.port) as stream:
        head = f"GET /status HTTP/1.1\r\nHost: localhost\r\n{by(token)}\r\n"
        return Answer(await exchange(stream, head)).status


async def guess(turbod: Turbod, guesser: int) -> None:
    """Send many wrong tokens, one after the other."""
    for number in range(GUESSES // GUESSERS):
        assert await status(turbod, f"turbod_{guesser:021}_{number:021}") in {401, 429}


class Reader:
    """Follows a stream with a token."""

    def __init__(self, turbod: Turbod, token: str) -> None:
        self.cursors: list[int] = []
        self.error = ""
        self._url = f"ws://127.0.0.1:{turbod.port}"
        self._token = token

    async def run(self) -> None:
        """Read until refused."""
        async with follow(self._url, token=self._token) as records:
            try:
                await self._read(records)
            except Refused as refused:
                self.error = str(refused)

    async def _read(self, records: Records) -> None:
        async for record in records:
            self.cursors.append(record.cursor)


@pytest.mark.slow
async def test_guesses_cost_nothing_and_a_token_is_taken_back_by_a_reload(tmp_path: Path) -> None:
    file = tmp_path / "tokens.toml"
    write(file, "alice", "bob")
    async with (
        simulated(seed=11) as simulation,
        serving(simulation, tmp_path / "data", options={"server-tokens": file}) as turbod,
        trio.open_nursery() as nursery,
    ):
        alice, bob = Reader(turbod, ALICE), Reader(turbod, BOB)
        nursery.start_soon(alice.run)
        nursery.start_soon(bob.run)
        simulation.rate = 50
        await until(lambda: bool(alice.cursors and bob.cursors), seconds=20, what="both read")

        await guess(turbod, 0)  # whatever the first requests need is there
        before, count = await turbod.resident_bytes(), len(bob.cursors)
        async with trio.open_nursery() as guessers:
            for guesser in range(GUESSERS):
                guessers.start_soon(guess, turbod, guesser)
        assert await status(turbod, ALICE) == 200
        assert len(bob.cursors) > count
        assert await turbod.resident_bytes() - before < 12 * MEGABYTE  # of events, mostly

        file.write_text("[alice\n")
        turbod.process.send_signal(signal.SIGHUP)
        await until(lambda: "not TOML" in turbod.output, seconds=10, what="the mistake is told")
        assert await status(turbod, ALICE) == 200
        write(file, "bob")
        turbod.process.send_signal(signal.SIGHUP)
        await until(lambda: alice.error != "", seconds=10, what="alice has to go")
        assert alice.error.startswith("AuthRevoked: ")
        assert await status(turbod, ALICE) in {401, 429}
        count = len(bob.cursors)
        await until(lambda: len(bob.cursors) > count, seconds=10, what="bob goes on")
        assert await turbod.stop() == 0
        assert turbod.output.count("event=wrong_token ") == 1
        assert "tokens_revoked" in turbod.output
        for secret in (ALICE, BOB, bearer.digest(ALICE).hex(), "turbod_0000"):
            assert secret not in turbod.output
        nursery.cancel_scope.cancel()


@pytest.mark.slow
async def test_a_mistake_in_the_file_keeps_it_from_starting_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "tokens.toml"
    for text, words in (
        (f"[alice]\nsha256 = '{ALICE}'", "sha256 must be 64 hexadecimal digits"),
        (None, "No such file or directory"),
    ):
        file.unlink(missing_ok=True)
        if text is not None:
            file.write_text(text)
        turbod = Turbod(
            tmp_path / f"data{len(words)}",
            upstreams=["ws://127.0.0.1:9/subscribe"],
            appview="http://127.0.0.1:9",
            options=["--server-tokens", str(file)],
        )
        await turbod.start(wait=False)
        assert await turbod.ended() == 2
        lines = turbod.output.splitlines()
        assert len(lines) == 1
        assert words in lines[0]
        assert str(file) in lines[0]
        assert ALICE not in lines[0]
