"""What a service manager sees of `turbod serve`: real sockets, a real process, no systemd."""

import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.acceptance.process import Turbod
from tests.acceptance.service_manager import Manager
from tests.acceptance.settling import until

SECONDS = 20.0
# Puts standard input at descriptor 3, as systemd passes a socket, and becomes the command.
PASS_SOCKET = """
exec 3<&0 </dev/null
export LISTEN_FDS=1 LISTEN_PID=$$ LISTEN_FDNAMES=$1
shift
exec "$@"
"""


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    listening = Manager(tmp_path / "notify")
    yield listening
    listening.close()


@asynccontextmanager
async def managed(
    data: Path,
    manager: Manager,
    *,
    watchdog_seconds: float = 0,
    program: Sequence[str] = ("-m", "turbod"),
) -> AsyncIterator[Turbod]:
    """Run turbod as a service manager does, without anything that it could reach."""
    turbod = Turbod(
        data,
        upstreams=["ws://127.0.0.1:9/subscribe"],
        appview="http://127.0.0.1:9",
        program=program,
    )
    variables = [
        f"NOTIFY_SOCKET={manager.address}",
        f"WATCHDOG_USEC={round(watchdog_seconds * 1_000_000)}",
    ]
    turbod.command[:0] = ["env", *variables]
    try:
        yield turbod
    finally:
        await turbod.clean_up()


async def test_the_manager_hears_of_start_state_and_stop(tmp_path: Path, manager: Manager) -> None:
    """READY once subscribers can be served though the network is away; words; STOPPING; exit 0."""
    async with managed(tmp_path / "data", manager) as turbod:
        await turbod.start(wait=False)
        await until(lambda: "READY=1" in manager.heard, seconds=SECONDS, what="READY=1")
        heard = list(manager.heard)
        assert any(
            line.startswith("EXTEND_TIMEOUT_USEC=") for line in heard[: heard.index("READY=1")]
        )
        assert (await turbod.get("/readyz"))[0] == 200
        await until(
            lambda: any("No Jetstream host answers" in line for line in manager.heard),
            seconds=SECONDS,
            what="what is wrong stands in STATUS=",
        )
        assert "WATCHDOG=1" not in manager.heard
        assert await turbod.stop() == 0
        assert "STOPPING=1" in manager.heard


async def test_the_watchdog_is_fed_well_within_its_time(tmp_path: Path, manager: Manager) -> None:
    """A quiet network is no reason to miss one feed."""
    async with managed(tmp_path / "data", manager, watchdog_seconds=1) as turbod:
        await turbod.start()
        began, before = trio.current_time(), manager.heard.count("WATCHDOG=1")
        await trio.sleep(2)
        fed = manager.heard.count("WATCHDOG=1") - before
        assert fed >= 2 * (trio.current_time() - began)
        assert await turbod.stop() == 0


async def test_the_socket_of_a_manager_outlives_the_process(tmp_path: Path) -> None:
    """Who connects while turbod is away waits in the socket's queue, and is served."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        turbod = passed(tmp_path / "data", listening.fileno(), name="http")
        turbod.port = listening.getsockname()[1]
        try:
            await turbod.start()
            await turbod.stop()
            with trio.fail_after(SECONDS):
                async with trio.open_nursery() as nursery:
                    answers: list[int] = []

                    async def ask() -> None:
                        answers.append((await turbod.get("/records?cursor=0"))[0])

                    nursery.start_soon(ask)
                    await trio.sleep(0.2)
                    assert not answers
                    await turbod.start(wait=False)
            assert answers == [200]
            assert await turbod.stop() == 0
        finally:
            await turbod.clean_up()
    turbod.check_own_faults()


WRONG_SOCKETS = {
    "datagram": "no stream socket",
    "unix": "no internet socket",
    "connected": "Accept=no",
    "other_name": "none is named http",
    "a_file": "use ListenStream=",
}


@pytest.mark.parametrize("kind", WRONG_SOCKETS)
async def test_a_socket_of_the_wrong_kind_is_one_line_and_exit_78(
    kind: str, tmp_path: Path
) -> None:
    """The manager does not try again what only an operator can mend, and the line says what."""
    name = "mail" if kind == "other_name" else "http"
    with ExitStack() as stack:
        turbod = passed(tmp_path / "data", wrong(kind, tmp_path, stack), name=name)
        await turbod.start(wait=False)
        assert await turbod.ended() == 78
    (line,) = [line for line in turbod.output.splitlines() if line.startswith("turbod: ")]
    assert WRONG_SOCKETS[kind] in line
    assert "turbod.socket" in line


def wrong(kind: str, folder: Path, stack: ExitStack) -> int:
    """Return the descriptor of what a socket unit should not pass."""
    if kind == "a_file":
        return stack.enter_context((folder / "file").open("wb")).fileno()
    if kind == "unix":
        local = stack.enter_context(socket.socket(socket.AF_UNIX))
        local.bind(str(folder / "socket"))
        local.listen()
        return local.fileno()
    if kind == "datagram":
        return stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)).fileno()
    listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    if kind == "other_name":
        return listening.fileno()
    return stack.enter_context(socket.create_connection(listening.getsockname())).fileno()


def passed(data: Path, descriptor: int, *, name: str) -> Turbod:
    """Return a turbod whose processes are passed a descriptor, as by a socket unit."""
    turbod = Turbod(data, upstreams=["ws://127.0.0.1:9/subscribe"], appview="http://127.0.0.1:9")
    turbod.command[:0] = ["sh", "-c", PASS_SOCKET, "sh", name]
    turbod.stdin = descriptor
    return turbod


async def test_a_socket_that_was_announced_and_is_not_there_is_one_line_and_exit_78(
    tmp_path: Path,
) -> None:
    turbod = passed(tmp_path / "data", subprocess.DEVNULL, name="http")
    turbod.command[2] = 'export LISTEN_FDS=5000 LISTEN_PID=$$; shift; exec "$@"'
    await turbod.start(wait=False)
    assert await turbod.ended() == 78
    assert "LISTEN_FDS=5000: Bad file descriptor; " in turbod.output
    assert turbod.output.count("\n") == 1


async def test_a_sighup_is_no_end_whenever_it_comes(tmp_path: Path, manager: Manager) -> None:
    """Not while all is loaded, before anybody hears it, nor at the very end: the exit code is ours.

    systemd takes a death by SIGHUP for an orderly one, and starts nothing again.
    """
    async with managed(tmp_path / "data", manager) as turbod, trio.open_nursery() as nursery:
        await turbod.start(wait=False)
        status = trio.Path(f"/proc/{turbod.process.pid}/status")

        async def blocks_it() -> bool:
            (blocked,) = [
                line for line in (await status.read_text()).splitlines() if "SigBlk" in line
            ]
            return bool(int(blocked.split()[1], 16) & 1 << signal.SIGHUP - 1)

        with trio.fail_after(SECONDS):
            while not await blocks_it():  # noqa: ASYNC110 - no event
                await trio.sleep(0.001)

        async def annoy() -> None:
            while turbod.process.poll() is None:
                turbod.process.send_signal(signal.SIGHUP)
                await trio.sleep(0.005)

        nursery.start_soon(annoy)
        await turbod.ready()
        assert await turbod.stop() == 0
        nursery.cancel_scope.cancel()
    assert "event=reloaded" in turbod.output
    assert "event=stopped" in turbod.output


CRASHING = """
from turbod import cli, daemon

async def crash(self):
    raise LookupError("turbod is wrong")

daemon.Daemon._save = crash
cli.main()
"""


async def test_what_is_our_own_fault_is_one_line_and_exit_1(
    tmp_path: Path, manager: Manager
) -> None:
    """The manager starts it again, and the line says where it happened."""
    program = ("-c", CRASHING)
    async with managed(tmp_path / "data", manager, program=program) as turbod:
        await turbod.start()
        assert await turbod.ended() == 1
    (line,) = [line for line in turbod.output.splitlines() if "wrong" in line]
    assert "level=critical event=crashed" in line
    assert "daemon.py" in line
    assert not [line for line in turbod.output.splitlines() if "level=" not in line]


async def test_a_reload_says_that_credentials_are_those_of_the_start(
    tmp_path: Path, manager: Manager
) -> None:
    """They were copied once: who took a token back there must not believe that it is done."""
    (tmp_path / "turbod_tokens").write_text("")
    async with managed(tmp_path / "data", manager) as turbod:
        turbod.command.insert(1, f"CREDENTIALS_DIRECTORY={tmp_path}")
        await turbod.start()
        turbod.process.send_signal(signal.SIGHUP)
        await until(lambda: "event=reloaded" in turbod.output, seconds=SECONDS, what="it reloads")
        assert 'changed=none needs_restart="credential tokens if it changed"' in turbod.output
        assert await turbod.stop() == 0


HANGING = """
import time
from turbod import cli, database, service
service.STATUS_SECONDS = 0.1
write = database.Database.write
def hang(self, changes):
    write(self, changes)
    time.sleep(60)
database.Database.write = hang
cli.main()
"""


async def test_a_stop_that_a_disk_holds_up_asks_for_no_more_time(
    tmp_path: Path, manager: Manager
) -> None:
    """Else the manager would wait for ever, and nobody would kill us."""
    async with managed(tmp_path / "data", manager, program=("-c", HANGING)) as turbod:
        turbod.command += ["--server-shutdown-seconds", "1"]
        await turbod.start()
        await trio.sleep(1.5)  # it writes once a second
        turbod.process.terminate()
        await until(lambda: "STOPPING=1" in manager.heard, seconds=SECONDS, what="STOPPING=1")
        await trio.sleep(2)
        heard = len(manager.heard)
        await trio.sleep(1)
        assert turbod.process.poll() is None
        assert len(manager.heard) == heard
