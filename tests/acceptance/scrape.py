"""`/metrics` of a turbod as numbers by name and labels."""

from collections.abc import Iterator, Mapping

from prometheus_client.parser import text_string_to_metric_families

from tests.acceptance.process import Turbod

Labels = Mapping[str, str]


class Scrape:
    """What one answer says."""

    def __init__(self, text: str) -> None:
        self.samples = [
            (sample.name, sample.labels, sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        ]

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
    """Ask for `/metrics`."""
    status, body = await turbod.get("/metrics")
    assert status == 200
    return Scrape(body.decode())
