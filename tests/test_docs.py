"""What the docs name is there."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("tests/**/*.md")])
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
LOGGERS = {"structlog.get_logger()", "structlog.stdlib.get_logger()"}
# It passes on what was logged before; a library for other programs uses their log.
ELSEWHERE = {"log_output.py": {"log"}, "client/following.py": LEVELS | {"log"}}
# By several levels: what it is about decides.
MADE_ELSEWHERE = {"library_says": {"warning", "error"}, "log_lines_lost": {"warning"}}


def anchors(page: Path) -> set[str]:
    """Return what a link may name behind its `#`: the headings as GitHub spells them."""
    headings = re.findall(r"(?m)^#+ (.*)$", page.read_text())
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith(("http:", "https:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_test_that_an_invariant_names_is_there() -> None:
    text = (ROOT / "docs" / "invariants.md").read_text()
    named = re.findall(r"`([a-z0-9_/]+\.py)::(test_\w+)`", text)
    assert len(named) == text.count("::test_") > 0
    for file, test in named:
        source = (ROOT / "tests" / file).read_text()
        assert re.search(rf"(?m)^(async )?def {test}\(", source), f"{file}::{test}"


def test_every_invariant_names_a_test() -> None:
    text = (ROOT / "docs" / "invariants.md").read_text().partition("## Gotchas")[0]
    for promise in re.split(r"(?m)^(?=\*\*)", text)[1:]:
        assert "::test_" in promise, promise.partition("\n")[0]


def test_every_module_and_script_that_a_page_names_is_there() -> None:
    for page in PAGES:
        for path in re.findall(
            r"`((?:turbod|tests|scripts|docs|\.ci)/[\w/.-]+)`", page.read_text()
        ):
            assert (ROOT / path).exists(), f"{page.name}: {path}"


def log_calls() -> list[tuple[str, ast.Call]]:
    """Return every call of `log` with the level it has, the simulation's apart."""
    found = []
    for path in (ROOT / "turbod").rglob("*.py"):
        name = path.relative_to(ROOT / "turbod").as_posix()
        if name.startswith("simulation/"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Assign(targets=[target]) if ast.unparse(node.value) in LOGGERS:
                    assert ast.unparse(target) == "log", f"{name}: its events are not found here"
                case ast.Call(func=ast.Attribute(value=ast.Name(id="log"), attr=level)):
                    if level in (LEVELS | {"log"}) - ELSEWHERE.get(name, set()):
                        found.append((level, node))
    return found


def logged_events() -> dict[str, set[str]]:
    levels = defaultdict(set, {name: set(found) for name, found in MADE_ELSEWHERE.items()})
    for level, call in log_calls():
        event = call.args[0]
        assert isinstance(event, ast.Constant), f"{ast.unparse(call)}: its name is not to be found"
        levels[str(event.value)].add("error" if level == "exception" else level)
    return levels


def documented_events() -> dict[str, set[str]]:
    rows = re.findall(
        r"(?m)^\| `(\w+)` \| ([a-z ]+) \| [^|]+ \|[^|\n]*\|$", (ROOT / "docs/log.md").read_text()
    )
    assert len({name for name, _ in rows}) == len(rows), "an event stands there twice"
    return {name: set(levels.split(" or ")) for name, levels in rows}


def test_the_page_of_the_log_names_every_event_with_its_level_and_no_other() -> None:
    assert documented_events() == dict(logged_events())


def test_an_event_is_a_name_and_what_varies_is_in_its_fields() -> None:
    for _, call in log_calls():
        assert len(call.args) == 1, ast.unparse(call)
    assert all(re.fullmatch("[a-z_]+", name) for name in logged_events())
