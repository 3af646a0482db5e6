"""Locks, events and channels belong to one event loop, so none is made at import."""

import ast
from collections.abc import Iterator
from pathlib import Path

import turbod

SOURCES = sorted(Path(turbod.__file__).parent.rglob("*.py"))


def run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the parts of a module that run when it is imported: all but functions' bodies."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from run_at_import(child)


def made_at_import(source: str) -> list[str]:
    """Return what a module makes of trio's at import."""
    parts = run_at_import(ast.parse(source))
    calls = [ast.unparse(part.func) for part in parts if isinstance(part, ast.Call)]
    return [call for call in calls if call.startswith("trio.")]


def test_nothing_that_belongs_to_an_event_loop_is_made_before_there_is_one() -> None:
    assert {str(path): made_at_import(path.read_text()) for path in SOURCES} == {
        str(path): [] for path in SOURCES
    }


def test_what_is_made_at_import_is_found_in_classes_too() -> None:
    assert made_at_import("class A:\n    lock = trio.Lock()\nevent = trio.Event()") == [
        "trio.Lock",
        "trio.Event",
    ]
    assert made_at_import("def f():\n    return trio.Lock()") == []
