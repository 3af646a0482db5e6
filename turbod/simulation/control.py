"""Faults by name, as the command line and the control page of a running simulation give them."""

from dataclasses import fields
from typing import Final

from turbod.simulation.faults import Faults
from turbod.simulation.jetstream_host import JetstreamHost
from turbod.simulation.world import Simulation

ACTIONS: Final = ("go_down", "come_up", "drop_connections", "renumber", "lose_history")
NUMBERS: Final = ("stamp", "retain", "release")  # actions that take one
SWITCHES: Final = tuple(field.name for field in fields(Faults) if field.name != "misses")
APPVIEW: Final = ("latency_seconds", "fail", "calls_per_second", "go_down", "come_up")
_OFF: Final = frozenset({"", "0", "off", "no", "false"})
BUDGET_WINDOW_SECONDS: Final = 10


class NoSuchFault(ValueError):
    """What was asked for is none of the faults, with what they are."""


def command(simulation: Simulation, text: str) -> None:
    """Do what a text says: `HOST:NAME`, `HOST:NAME=VALUE`, or `appview:NAME=VALUE`.

    Hosts count from 0. A name alone switches on; `NAME=off` or `NAME=0` switches off.

    Raises:
        NoSuchFault: with the names there are.
    """
    who, _, what = text.partition(":")
    name, given, value = what.partition("=")
    try:
        if who == "appview":
            _appview(simulation, name, float(value or 0))
        else:
            _host(simulation.jetstreams[int(who)], name, value if given else "1")
    except (ValueError, IndexError) as error:
        names = ", ".join((*SWITCHES, *ACTIONS, *NUMBERS))
        raise NoSuchFault(
            f"{text!r} is none: HOST:NAME or HOST:NAME=VALUE with HOST from 0 to "
            f"{len(simulation.jetstreams) - 1} and NAME one of {names}; or appview:NAME=VALUE "
            f"with NAME one of {', '.join(APPVIEW)}"
        ) from error


def _host(host: JetstreamHost, name: str, value: str) -> None:
    if name in SWITCHES:
        kind = type(getattr(host.faults, name))
        number = float("0" if value.lower() in _OFF else value.replace("on", "1"))
        setattr(host.faults, name, kind(number))
    elif name in ACTIONS:
        getattr(host, name)()
    elif name in NUMBERS:
        kind = int if name == "release" else float
        getattr(host, name)(kind(value))
    else:
        raise ValueError(name)


def _appview(simulation: Simulation, name: str, value: float) -> None:
    appview = simulation.appview
    if name == "latency_seconds":
        appview.latency_seconds = value
    elif name == "fail":
        appview.fail(value)
    elif name == "calls_per_second":
        calls = int(value * BUDGET_WINDOW_SECONDS)
        appview.budget = (calls, BUDGET_WINDOW_SECONDS) if calls else None
    elif name in {"go_down", "come_up"}:
        getattr(appview, name)()
    else:
        raise ValueError(name)
