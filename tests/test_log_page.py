"""docs/log.md names every event that turbod logs, with its level, and no other."""

import ast
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
# It passes on what was logged before; a library for other programs uses their log.
ELSEWHERE = {"log_output.py": {"log"}, "client/following.py": LEVELS | {"log"}}
# By several levels: what it is about decides.
MADE_ELSEWHERE = {"library_says": {"warning", "error"}, "log_lines_lost": {"warning"}}


def calls() -> list[tuple[str, ast.Call]]:
    """Return every call of `log` with the level it has, the simulation's apart."""
    found = []
    for path in (ROOT / "turbod").rglob("*.py"):
        name = path.relative_to(ROOT / "turbod").as_posix()
        if name.startswith("simulation/"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name(id="log"), attr=level)):
                    if level in (LEVELS | {"log"}) - ELSEWHERE.get(name, set()):
                        found.append((level, node))
    return found


def logged() -> dict[str, set[str]]:
    levels = defaultdict(set, {name: set(found) for name, found in MADE_ELSEWHERE.items()})
    for level, call in calls():
        event = call.args[0]
        assert isinstance(event, ast.Constant), f"{ast.unparse(call)}: its name is not to be found"
        levels[str(event.value)].add("error" if level == "exception" else level)
    return levels


def documented() -> dict[str, set[str]]:
    rows = re.findall(
        r"(?m)^\| `(\w+)` \| ([a-z ]+) \| [^|]+ \|[^|\n]*\|$", (ROOT / "docs/log.md").read_text()
    )
    assert len({name for name, _ in rows}) == len(rows), "an event stands there twice"
    return {name: set(levels.split(" or ")) for name, levels in rows}


def test_the_page_names_every_event_with_its_level_and_no_other() -> None:
    assert documented() == dict(logged())


def test_an_event_is_a_name_and_what_varies_is_in_its_fields() -> None:
    for _, call in calls():
        assert len(call.args) == 1, ast.unparse(call)
    assert all(re.fullmatch("[a-z_]+", name) for name in logged())
