"""Families of Prometheus' text format, made of plain numbers. See docs/metrics.md for each."""

from collections.abc import Mapping
from typing import TypeVar

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from turbod.histogram import Distribution

# The values of several labels, or the value of the only one.
Label = TypeVar("Label", bound=str | tuple[str, ...])


def gauge(name: str, text: str, value: float | None) -> Metric:
    """Return what goes up and down; without a sample where it is not known."""
    family = GaugeMetricFamily(name, text)
    if value is not None:
        family.add_metric([], value)
    return family


def counter(name: str, text: str, value: float) -> Metric:
    """Return what only rises; `_total` is put behind its name."""
    return CounterMetricFamily(name, text, value=value)


def gauges(name: str, text: str, labels: str, values: Mapping[str, float | None]) -> Metric:
    """Return a gauge of each that is known, told apart by a label."""
    family = GaugeMetricFamily(name, text, labels=labels.split())
    for label, value in values.items():
        if value is not None:
            family.add_metric(_labels(label), value)
    return family


def counters(name: str, text: str, labels: str, values: Mapping[Label, float]) -> Metric:
    """Return a counter of each, told apart by labels, whose names `labels` has."""
    family = CounterMetricFamily(name, text, labels=labels.split())
    for label, value in values.items():
        family.add_metric(_labels(label), value)
    return family


def states(name: str, labels: str, known: tuple[str, ...], now: Mapping[Label, str]) -> Metric:
    """Return 1 for the state that each has and 0 for the others; the last label is the state."""
    family = GaugeMetricFamily(
        name, "1 for the state that it has, 0 for the others.", labels=labels.split()
    )
    for label, state in now.items():
        for each in known:
            family.add_metric([*_labels(label), each], float(each == state))
    return family


def histogram(name: str, text: str, distribution: Distribution) -> Metric:
    """Return counts by upper bound."""
    family = HistogramMetricFamily(name, text)
    _add(family, [], distribution)
    return family


def histograms(name: str, text: str, label: str, all_of: Mapping[str, Distribution]) -> Metric:
    """Return counts by upper bound of each, told apart by a label."""
    family = HistogramMetricFamily(name, text, labels=[label])
    for value, distribution in all_of.items():
        _add(family, [value], distribution)
    return family


def _add(family: HistogramMetricFamily, labels: list[str], distribution: Distribution) -> None:
    bounds = [*(f"{float(bound)}" for bound in distribution.bounds), "+Inf"]
    buckets = list(zip(bounds, distribution.cumulative, strict=True))
    family.add_metric(labels, buckets=buckets, sum_value=distribution.sum)


def _labels(label: str | tuple[str, ...]) -> list[str]:
    return [label] if isinstance(label, str) else list(label)
