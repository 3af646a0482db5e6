"""The direction of the data is the direction of the imports: see docs/architecture.md."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1] / "turbod"
ROWS = (
    (
        *("amounts", "backoff", "causes", "config", "cursor", "envelope", "flood", "frames"),
        "histogram",
        *("journal", "listen_address", "log_lines", "log_strays", "redaction", "start", "systemd"),
    ),
    ("bearer", "data_folder", "event", "heartbeat", "listeners", "log_output"),
    ("database", "record"),
    ("eventlog", "filter", "hydration", "simulation", "upstream"),
    ("archive",),
    ("client", "exclusion", "server"),
    ("report",),
    ("lookback",),
    ("check", "compare", "daemon", "status", "tail", "token_command"),
    ("service",),
    ("cli",),
    ("__main__",),
)
PURE = (
    *(
        "amounts",
        "backoff",
        "bearer",
        "config",
        "cursor",
        "envelope",
        "event",
        "filter",
        "flood",
        "frames",
    ),
    *("histogram", "listen_address", "log_lines", "record", "redaction"),
)
PURE_PARTS = (
    *(
        "archive/catalogue",
        "archive/reading/cutting",
        "archive/format/did_filter",
        "archive/format/hour_object",
    ),
    *(
        "archive/stores/hours_page",
        "archive/format/index",
        "archive/upload/intruders",
        "archive/format/names",
    ),
    *("check/finding", "check/local_verdicts", "check/network_verdicts"),
    *("compare/comparison", "compare/delays", "compare/order", "compare/pairing"),
    *("compare/seen", "compare/verdicts"),
    *("status/told", "status/words"),
    *("lookback/calendar", "lookback/faults", "lookback/incidents", "lookback/samples"),
    *("archive/bulk/parts", "archive/reading/selection"),
    *("eventlog/batch", "eventlog/chunk", "eventlog/cutter", "eventlog/hour_file", "eventlog/line"),
    *("hydration/assembly", "hydration/budget", "hydration/freshness", "hydration/lag"),
    *("hydration/views", "server/forwarding", "server/guesses", "server/origins"),
    *("server/packing", "server/tokens"),
    *("upstream/gaps", "upstream/identities", "upstream/low_water", "upstream/merge"),
    *("upstream/position", "upstream/subscription"),
)
NEVER_IN_PURE = {"trio", "threading", "socket", "asyncio", "time", "httpx", "apsw"}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "turbod":
            found |= {f"turbod.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def test_a_module_imports_rows_above_its_own_or_its_own_package() -> None:
    rows = {name: number for number, row in enumerate(ROWS) for name in row}
    for path in ROOT.rglob("*.py"):
        own = path.relative_to(ROOT).parts[0].removesuffix(".py")
        for name in imports(path) if own != "__init__" else ():
            part = name.split(".")[1] if name.startswith("turbod.") else own
            if part not in {own, "__version__"}:
                assert rows[part] < rows[own], f"{path} imports {name}"


def test_pure_modules_know_no_event_loop_no_thread_and_no_clock() -> None:
    for part in (*PURE, *PURE_PARTS):
        found = {name.partition(".")[0] for name in imports(ROOT / f"{part}.py")}
        assert not found & NEVER_IN_PURE, part


def test_every_package_says_what_it_owns() -> None:
    for path in ROOT.rglob("*.py"):
        assert ast.get_docstring(ast.parse(path.read_text())), path
