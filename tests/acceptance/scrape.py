"""`/metrics` of a turbod as numbers by name and labels."""

from collections.abc import Iterator, Mapping

import trio
from prometheus_client.parser import text_string_to_metric_families

from tests.acceptance.process import Turbod

OK, TOO_MANY_REQUESTS = 200, 429
Labels = Mapping[str, str]


class Scrape:
    """What one answer says.

    Attributes:
        samples: name, labels and value of each.
        rising: the names of those that only rise.
    """

    def __init__(self, text: str) -> None:
        self.samples: list[tuple[str, Labels, float]] = []
        self.rising: set[str] = set()
        for family in text_string_to_metric_families(text):
            self.samples += [(each.name, each.labels, each.value) for each in family.samples]
            if family.type in {"counter", "histogram"}:
                self.rising |= {each.name for each in family.samples}

    def __call__(self, name: str, **labels: str) -> float:
        """Return the sum of all samples of a name that have these labels; there is one."""
        found = list(self.of(name, **labels))
        assert found, f"no sample of {name} {labels}"
        return sum(value for _, value in found)

    def of(self, name: str, **labels: str) -> Iterator[tuple[Labels, float]]:
        """Yield the samples of a name that have these labels."""
        for other, has, value in self.samples:
            if other == name and labels.items() <= has.items():
                yield has, value


async def scrape(turbod: Turbod) -> Scrape:
    """Ask for `/metrics`, again where there is no room for one who asks."""
    status, body = await turbod.get("/metrics")
    while status == TOO_MANY_REQUESTS:
        await trio.sleep(0.05)
        status, body = await turbod.get("/metrics")
    assert status == OK
    return Scrape(body.decode())
