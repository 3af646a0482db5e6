"""What the docs name is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("tests/**/*.md")])


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
