"""turbod's own clients send their token to the server that they were given, and to nobody else."""

import functools
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs

from tests.archive.commands import ROOT
from tests.client.servers import behaving
from tests.server.harness import serving
from tests.server.people import ALICE, STRANGER, tokens
from tests.server.served_archive import serving_archive
from turbod.archive.stores.store import StoreFault
from turbod.archive.stores.web import WebSource
from turbod.client import BadToken, Refused, follow
from turbod.client.stream import Stream
from turbod.config import ServerSettings
from turbod.server.request import HeadReader, answer

KEY = "dt=2024-08-09/hour=02/1723168800000000-1723172370000000.jsonl.zst"


async def run(*arguments: str, token: str | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run the real command."""
    command = [sys.executable, "-m", "turbod", *arguments]
    environment = {"PATH": "/usr/bin:/bin"} | ({} if token is None else {"TURBOD_TOKEN": token})
    with trio.fail_after(30):
        return await trio.run_process(
            command,
            cwd=ROOT,
            env=environment,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )


async def test_history_and_stream_are_followed_with_a_token(tmp_path: Path) -> None:
    async with serving_archive(tmp_path, tokens=tokens()) as (harness, archive):
        first = archive.names[0].first
        url = f"ws://127.0.0.1:{harness.port}"
        with trio.fail_after(10):
            async with follow(url, token=ALICE, cursor=first - 1) as records:
                assert (await anext(records)).cursor == first
            async with follow(url, cursor=first - 1) as records:
                with pytest.raises(Refused, match="answered 401: a token is needed"):
                    await anext(records)
            async with follow(url, token=STRANGER, cursor=first - 1) as records:
                with pytest.raises(Refused, match="answered 401: this token is not known"):
                    await anext(records)
            with pytest.raises(BadToken, match="token: expected a token"):
                await follow(url, token="no token\r\n").__aenter__()


async def test_a_revoked_token_ends_the_stream_for_good(tmp_path: Path) -> None:
    async with serving(tmp_path, tokens=tokens()) as harness, trio.open_nursery() as nursery:

        def revoke(_: object) -> None:
            harness.server.set_tokens(tokens("bob"))

        stream = Stream(
            f"ws://127.0.0.1:{harness.port}",
            token=ALICE,
            records=lambda _: None,
            told=revoke,
        )
        with trio.fail_after(5), pytest.raises(Refused, match="AuthRevoked: the token"):
            await stream.run()
        nursery.cancel_scope.cancel()


async def test_the_commands_take_it_from_the_environment_and_never_show_it(tmp_path: Path) -> None:
    async with serving_archive(tmp_path, tokens=tokens()) as (harness, archive):
        web, stream = (f"{scheme}://127.0.0.1:{harness.port}" for scheme in ("http", "ws"))
        listed = await run("archive", "ls", web, token=ALICE)
        assert listed.returncode == 0, listed.stderr
        refused = await run("archive", "ls", web)
        assert refused.returncode == 1
        assert b"asks for a token; its operator gives one, TURBOD_TOKEN is for it" in refused.stderr
        refused = await run("archive", "ls", web, token=STRANGER)
        assert refused.returncode == 1
        assert b"does not know this token" in refused.stderr
        refused = await run("tail", stream, token=STRANGER)
        assert refused.returncode == 1
        assert b"this token is not known here" in refused.stderr
        assert STRANGER.encode() not in refused.stderr
        refused = await run("tail", stream, token="a token\n")
        assert refused.returncode == 2
        assert refused.stderr.startswith(b"turbod: TURBOD_TOKEN: expected a token")
        assert refused.stderr.count(b"\n") == 1
        folder = await run("archive", "ls", str(archive.folder), token=ALICE)
        assert folder.returncode == 0, folder.stderr  # it is no setting of the daemon's


async def test_the_command_that_prints_a_stream_is_let_in(tmp_path: Path) -> None:
    async with serving(tmp_path, tokens=tokens()) as harness, trio.open_nursery() as nursery:
        await harness.fill(3)
        command = [sys.executable, "-m", "turbod", "tail", "--cursor=0"]
        process: trio.Process = await nursery.start(
            functools.partial(
                trio.run_process,
                [*command, f"ws://127.0.0.1:{harness.port}"],
                cwd=ROOT,
                env={"TURBOD_TOKEN": ALICE},
                stdout=subprocess.PIPE,
                check=False,
            )
        )
        assert process.stdout is not None
        with trio.fail_after(20):
            received = b""
            while received.count(b"\n") < 3:
                received += await process.stdout.receive_some()
        process.terminate()


class Seen:
    """What a server was sent, and where it leads to."""

    def __init__(self, *places: str) -> None:
        self.heads: list[dict[str, str]] = []
        self._places = list(places)

    async def behave(self, stream: trio.SocketStream) -> None:
        """Lead on, or say no."""
        reader = HeadReader()
        while (request := reader.feed(bytes(await stream.receive_some()))) is None:
            pass
        self.heads.append(request.headers)
        place = self._places.pop(0) if self._places else ""
        headers = {"Location": place} if place else {}
        await stream.send_all(answer(307 if place else 404, b"", headers=headers))

    @property
    def tokens(self) -> Sequence[str | None]:
        """The headers that carry one."""
        return [head.get("authorization") for head in self.heads]


async def test_where_a_server_leads_to_another_the_token_stays_behind() -> None:
    """The buckets' presigned URLs carry their own right, and strangers are no friends of ours."""
    away = Seen()
    async with behaving(away.behave) as port:
        near = Seen("/archive/elsewhere", f"http://127.0.0.1:{port}/{KEY}?X-Amz-Signature=0")
        async with behaving(near.behave) as near_port:
            url = f"http://127.0.0.1:{near_port}"
            async with WebSource(url, token=ALICE) as source:
                with suppress(StoreFault):
                    await source.read(KEY, offset=0, size=10)
    assert near.tokens == [f"Bearer {ALICE}"] * 2
    assert away.tokens == [None]


async def test_no_line_of_a_clients_log_holds_its_token(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = ServerSettings(max_wrong_tokens_per_minute=1)
    caplog.set_level("DEBUG")
    with capture_logs() as logs:
        async with serving(tmp_path, settings=settings, tokens=tokens()) as harness:
            url = f"ws://127.0.0.1:{harness.port}"
            for _ in range(2):
                stream = Stream(url, token=STRANGER, records=lambda _: None, told=lambda _: None)
                with trio.move_on_after(0.3), suppress(Refused):
                    await stream.run()
            with trio.move_on_after(0.3):
                async with follow(url, token=STRANGER, cursor=1_700_000_000_000_000) as records:
                    await anext(records)
    assert "stream_lost" in str(logs)  # 429: it comes again
    assert STRANGER not in str(logs) + caplog.text
