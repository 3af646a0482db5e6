"""Each panel of the dashboard has something to draw of a turbod that is well."""

from pathlib import Path

import pytest
import trio

from tests.acceptance.alerting import drawn, stretch
from tests.acceptance.archive_faults import racing
from tests.test_monitoring import PANELS, expressions


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_no_panel_is_empty(tmp_path: Path) -> None:
    async with racing(tmp_path) as race:
        await race.hours(3)
        await race.stored()
        race.simulation.rate = 100
        await trio.sleep(1)
        seen = await stretch(race.turbod)
    panels = sum(len(panel["targets"]) for panel in PANELS)
    drawn(seen, tmp_path, expressions()[:panels])
