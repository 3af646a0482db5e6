"""Figures and their bounds, and how they are printed."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import quantiles


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number.

    Attributes:
        name: what it is.
        value: the number, `unit` at its end.
        at_least, at_most: the bound that it must meet, where it has one.
    """

    name: str
    value: float
    unit: str = ""
    at_least: float | None = None
    at_most: float | None = None

    @property
    def is_met(self) -> bool:
        """Whether it is within its bound."""
        above = self.at_least is None or self.value >= self.at_least
        return above and (self.at_most is None or self.value <= self.at_most)

    def line(self) -> str:
        """Return it as it is printed."""
        bound = ""
        if self.at_least is not None:
            bound = f">= {self.at_least:g}"
        if self.at_most is not None:
            bound = f"<= {self.at_most:g}"
        verdict = ("ok" if self.is_met else "MISSED") if bound else ""
        shown = f"{self.value:,.3f}" if abs(self.value) < 10 else f"{self.value:,.1f}"  # noqa: PLR2004
        return f"  {self.name:<58} {shown:>12} {self.unit:<9} {bound:<10} {verdict}".rstrip()


def claim(name: str, *, holds: bool) -> Figure:
    """Return a promise as a figure: 1 where it holds, which it must."""
    return Figure(name, int(holds), at_least=1)


def say(text: str = "") -> None:
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def load_average() -> str:
    """Return how busy the machine was over the last minute."""
    return f"load {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores"


def percentile(values: Sequence[float], percent: int) -> float:
    """Return a percentile; of no values it is infinite, since what never came was never quick."""
    if not values:
        return float("inf")
    if len(values) == 1:
        return values[0]
    return quantiles(values, n=100, method="inclusive")[percent - 1]
