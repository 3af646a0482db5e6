"""What Prometheus makes of stretches of a real turbod's life: which alerts fire in each.

A stretch is two scrapes and how far they lie apart; it is taken to go on like that for an hour.
What counts goes on counting at its rate, what rose as fast as the clock goes on rising, the rest
stays as it is. promtool then evaluates the rules as Prometheus would.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import trio

from tests.acceptance.process import REPOSITORY, Turbod
from tests.acceptance.scrape import Labels, Scrape, scrape

RULES = REPOSITORY / "monitoring" / "alerts.yaml"
APART_SECONDS = 1.25
WELL_SECONDS = 2.5  # so that one hiccup of a busy machine is not a tenth of the time
MINUTES = 60
CLOCK_RATE = 0.8  # seconds a second from which on a gauge rises as the clock does
FIRING = 'ALERTS{alertstate="firing"}'
TARGET = {"job": "turbod", "instance": "localhost:8080"}

Series = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True)
class Stretch:
    """How it was for a while; `is_up` is whether turbod answered at all."""

    first: Scrape
    last: Scrape
    seconds: float = APART_SECONDS
    minutes: int = MINUTES
    is_up: bool = True


async def stretch(turbod: Turbod, *, seconds: float = APART_SECONDS) -> Stretch:
    """Look twice."""
    first, began = await scrape(turbod), trio.current_time()
    await trio.sleep(seconds)
    last = await scrape(turbod)
    return Stretch(first, last, trio.current_time() - began)


async def moment(turbod: Turbod, *, minutes: int) -> Stretch:
    """Look once, and take it to stay so."""
    seen = await scrape(turbod)
    return Stretch(seen, seen, minutes=minutes)


def drawn(seen: Stretch, folder: Path, expressions: Sequence[str]) -> None:
    """Fail unless each of these has something to draw at the end of a stretch."""
    checks = [
        {
            "expr": f"clamp_max(count({expression}), 1)",
            "eval_time": f"{seen.minutes - 1}m",
            "exp_samples": [{"labels": "{}", "value": 1}],
        }
        for expression in expressions
    ]
    _check([seen], checks, folder)


def firing(stretches: Sequence[Stretch], folder: Path, expected: Sequence[set[str]]) -> None:
    """Fail unless these alerts, and no others, fire in the course of each stretch."""
    checks, end = [], 0
    for each, names in zip(stretches, expected, strict=True):
        end += each.minutes
        samples = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(names)]
        checks.append(
            {
                "expr": f"group by (alertname) (max_over_time({FIRING}[{each.minutes - 1}m]))",
                "eval_time": f"{end - 1}m",
                "exp_samples": samples,
            }
        )
    _check(stretches, checks, folder)


def _check(
    stretches: Sequence[Stretch], checks: Sequence[Mapping[str, object]], folder: Path
) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not here: apt-get install prometheus")
    test = {"interval": "1m", "input_series": _input(stretches), "promql_expr_test": checks}
    file = folder / "test.json"
    file.write_text(
        json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [test]})
    )
    found = subprocess.run(
        [promtool, "test", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr


@dataclass
class _Line:
    """One series as it goes on: values as promtool writes them."""

    value: float = 0.0
    before: float | None = None
    words: list[str] = field(default_factory=list)


def _input(stretches: Sequence[Stretch]) -> list[Mapping[str, str]]:
    lines: dict[Series, _Line] = {}
    minutes = 0
    for each in stretches:
        first, last = _values(each.first), _values(each.last)
        rising = {key for key in last if key[0] in each.last.rising}
        for key in last if each.is_up else ():
            line = lines.setdefault(key, _Line())
            if missing := minutes - len(line.words):
                line.words += ["stale" if line.words else "_", *["_"] * (missing - 1)]
            before = first.get(key, last[key])
            rate = (last[key] - before) / each.seconds
            if key in rising:
                line.words += _rise(line, before, last[key], rate, each.minutes)
            else:
                is_age = key[0].endswith("_seconds") and CLOCK_RATE <= rate <= 1 / CLOCK_RATE
                line.words += _stay(last[key], 60.0 * is_age, each.minutes)
        minutes += each.minutes
    up = " ".join(f"{int(each.is_up)}x{each.minutes - 1}" for each in stretches)
    ended = [
        {"series": _text(key), "values": " ".join([*line.words, "stale"][: minutes + 1])}
        for key, line in lines.items()
    ]
    return [{"series": _text(("up", ())), "values": up}, *ended]


def _rise(line: _Line, first: float, last: float, rate: float, minutes: int) -> Iterator[str]:
    """Go on from where it was, as another process may have begun at 0 meanwhile."""
    line.value += first if line.before is None else max(first - line.before, 0.0)
    line.before = last
    for _ in range(minutes):
        yield f"{line.value:.6f}"
        line.value += max(rate, 0.0) * 60


def _stay(value: float, slope: float, minutes: int) -> Iterator[str]:
    return (f"{value + slope * minute:.6f}" for minute in range(minutes))


def _values(seen: Scrape) -> dict[Series, float]:
    return {(name, tuple(sorted(labels.items()))): value for name, labels, value in seen.samples}


def _text(key: Series) -> str:
    labels: Labels = dict(key[1]) | TARGET
    return (
        key[0] + "{" + ",".join(f"{name}={json.dumps(text)}" for name, text in labels.items()) + "}"
    )


def changed(well: Stretch, name: str, labels: Labels, value: float) -> Stretch:
    """Return a stretch in which one figure is another, and stays so."""
    return replace(
        well,
        first=_changed(well.first, name, labels, value),
        last=_changed(well.last, name, labels, value),
    )


def _changed(seen: Scrape, name: str, labels: Labels, value: float) -> Scrape:
    other = copy(seen)
    other.samples = [
        (each, has, value if each == name and labels.items() <= has.items() else was)
        for each, has, was in seen.samples
    ]
    assert other.samples != seen.samples, f"there is no {name} {labels}"
    return other
