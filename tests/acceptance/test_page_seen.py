"""The page of a real turbod while things go wrong, as Chromium shows it; photographed.

The pictures go into the folder that TURBOD_PHOTOGRAPHS names, for whoever wants to look at them.
"""

import os
import time
from pathlib import Path

import pytest
import trio

from tests.acceptance.process import Turbod, serving
from tests.archive.sealed import HOUR, line
from tests.server.chromium import Tab, browsing
from turbod.cursor import hour_name
from turbod.simulation.world import Simulation, simulated


def says(words: str, where: str = "main") -> str:
    """Return the script that asks whether a part of the page says this."""
    return f"document.querySelector('{where}').innerText.includes('{words}')"


async def photographed(tab: Tab, name: str, folder: Path) -> None:
    """Photograph it wide in both colour schemes, and on a phone."""
    folder = Path(os.environ.get("TURBOD_PHOTOGRAPHS", folder))
    for scheme in ("light", "dark"):
        await tab.look(scheme=scheme)
        await tab.photograph(folder / f"{name}-{scheme}.png")
    await tab.look(width=390, is_phone=True)
    assert await tab.evaluate("document.documentElement.scrollWidth") == 390
    await tab.photograph(folder / f"{name}-narrow.png")
    await tab.look()
    assert (folder / f"{name}-narrow.png").stat().st_size > 10_000


async def lose(simulation: Simulation, turbod: Turbod) -> None:
    """Let events be lost while turbod is away, an hour be left over, and its archive break."""
    await turbod.kill()
    simulation.emit(200)
    for host in simulation.jetstreams:
        host.lose_history()
    hour = time.time_ns() // 1000 // HOUR * HOUR - HOUR
    lines = [line(hour + number * 1_000_000) for number in range(1, 50)]
    (turbod.data / "live" / f"{hour_name(hour)}.jsonl").write_bytes(b"".join(lines))
    archive = turbod.data / "archive"
    await trio.to_thread.run_sync(archive.rename, turbod.data / "was_archive")
    archive.write_text("no folder")
    await turbod.start()


@pytest.mark.slow
@pytest.mark.timeout(150)
async def test_whoever_looks_sees_what_is_wrong_and_where(tmp_path: Path) -> None:
    """At rest; under load; a gap and a broken archive; then the AppView is away, too."""
    async with (
        browsing(tmp_path) as tab,
        simulated(rate=20, history_seconds=5) as simulation,
        serving(simulation, tmp_path / "data") as turbod,
    ):
        await tab.open(f"http://127.0.0.1:{turbod.port}/")
        await tab.until("document.querySelectorAll('#posts .who').length > 3", seconds=20)
        await tab.until("document.querySelectorAll('#plots path').length > 3", seconds=25)
        assert await tab.evaluate("document.querySelector('#faults').hidden")
        await tab.until(says("Nothing, since the server started", "#incidents"))
        await photographed(tab, "rest", tmp_path)
        simulation.rate = 400
        await tab.until("past.figures.events.at(-1) > 100", seconds=40)
        await photographed(tab, "load", tmp_path)
        simulation.rate = 20
        await lose(simulation, turbod)
        await tab.until(says("The archive is failing, 1 hour waits", "#faults"), seconds=30)
        await tab.until(says("gap in the stream", "#incidents"), seconds=30)
        await tab.evaluate("lookAtHours()")
        await tab.until("document.querySelector('#calendar td.waiting') !== null")
        await tab.until("document.querySelector('#calendar td.has-gap') !== null")
        assert await tab.evaluate(says("events may be missing", "#gaps"))
        lengths = "[past.figures.events, ...Object.values(past.hosts).map(host => host.events)]"
        lengths += ".every(column => column.length === past.seconds.length)"
        assert await tab.evaluate(lengths)
        assert await tab.evaluate("past.hosts[Object.keys(past.hosts)[0]].events[0] != null")
        await photographed(tab, "gap-and-archive", tmp_path)
        simulation.appview.go_down()
        await tab.until(says("The AppView does not answer", "#faults"), seconds=30)
        await tab.until(says("still so", "#incidents"), seconds=30)
        await photographed(tab, "appview-down", tmp_path)
