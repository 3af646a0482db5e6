"""Puts each curated bug in, and runs the tests that must notice it.

The bugs are the patches beside this file. Each begins with a line that says what is wrong and a
line `Noticed by:` with pytest node ids, every one of which must fail. The work is done in copies of
the tree as it is, uncommitted changes included; the tree itself is not touched. Exits 1 where a
bug goes unnoticed, a patch no longer applies, or a test fails without any bug.
"""

import argparse
import os
import queue
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
COPIED = ("turbod", "tests", "scripts", "docs", "pyproject.toml", "README.md", "LICENSE")
CAPTURES = Path(os.environ.get("TURBOD_CAPTURES", ROOT.parent / "shared" / "data")).resolve()
NEEDS_CAPTURES = "tests/acceptance/test_captures.py"
TEST_SECONDS = 30  # a bug may be that something waits for ever
MARK = "Noticed by: "
NOTICED = "noticed"

Copies = queue.SimpleQueue[Path]


class Bug:
    """One patch.

    Attributes:
        tests: the node ids that must fail; without the captured data, those that need none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.stem
        line = path.read_text().splitlines()[1]
        assert line.startswith(MARK), f"{path}: the second line names the tests"
        tests = line.removeprefix(MARK).split()
        can_run = CAPTURES.is_dir()
        self.tests = [test for test in tests if can_run or not test.startswith(NEEDS_CAPTURES)]


def main() -> int:
    """Prove all bugs, or those named; return the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/prove-tests", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of patches; default: all")
    parser.add_argument("--jobs", type=int, default=2, help="copies to work in (default 2)")
    arguments = parser.parse_args()
    bugs = [Bug(path) for path in sorted(HERE.glob("*.patch"))]
    if unknown := set(arguments.names) - {bug.name for bug in bugs}:
        parser.error(f"no such patch: {', '.join(sorted(unknown))}")
    bugs = [bug for bug in bugs if not arguments.names or bug.name in arguments.names]
    jobs = max(1, arguments.jobs)
    with tempfile.TemporaryDirectory(prefix="turbod-bugs-") as folder:
        copies = Copies()
        for number in range(jobs):
            copies.put(copy_tree(Path(folder) / str(number)))
        return prove(bugs, copies, jobs=jobs)


def prove(bugs: Sequence[Bug], copies: Copies, *, jobs: int) -> int:
    """Print a table, a bug a line; return the exit code."""
    copy = copies.get()
    failed, words = failing(copy, sorted({test for bug in bugs for test in bug.tests}))
    copies.put(copy)
    if failed is None:
        say(f"pytest did not run:\n{words}")
        return 1
    unnoticed, width = 0, max(len(bug.name) for bug in bugs)
    with ThreadPoolExecutor(jobs) as pool:
        judged = pool.map(lambda bug: judge(bug, copies, failing_anyway=failed), bugs)
        for bug, verdict in zip(bugs, judged, strict=True):
            say(f"{bug.name:{width}}  {verdict}")
            unnoticed += verdict != NOTICED
    say(f"{len(bugs) - unnoticed} of {len(bugs)} bugs noticed")
    return 1 if unnoticed else 0


def judge(bug: Bug, copies: Copies, *, failing_anyway: Sequence[str]) -> str:
    """Put one bug into a copy, run its tests, take it out; return a verdict."""
    if broken := [test for test in bug.tests if is_among(test, failing_anyway)]:
        return f"NOT SHOWN: {' '.join(broken)} fails without it"
    copy = copies.get()
    try:
        applied = apply(bug, copy)
        if applied.returncode:
            return f"DOES NOT APPLY: {applied.stderr.strip()}"
        try:
            failed, words = failing(copy, bug.tests)
        finally:
            apply(bug, copy, "--reverse").check_returncode()
    finally:
        copies.put(copy)
    if failed is None:
        return f"DID NOT RUN:\n{words}"
    passed = [test for test in bug.tests if not is_among(test, failed)]
    return f"UNNOTICED by {' '.join(passed)}" if passed else NOTICED


def failing(copy: Path, tests: Sequence[str]) -> tuple[list[str] | None, str]:
    """Run tests; return the node ids of those that failed (None: pytest did not run), and words."""
    command = [sys.executable, "-m", "pytest", "-q", "-rfE", "--tb=short", "--no-header"]
    command += ["-p", "no:cacheprovider", "--color=no", "-o", f"timeout={TEST_SECONDS}", *tests]
    run = execute(command, copy, environment(copy))
    words = run.stdout[-3000:] + run.stderr[-1000:]
    lines = [line.split(" ") for line in run.stdout.splitlines()]
    failed = [words[1] for words in lines if words[0] in {"FAILED", "ERROR"}]
    ran = run.returncode == (1 if failed else 0)
    return (failed if ran else None), words


def is_among(test: str, nodes: Iterable[str]) -> bool:
    """Tell whether a test, with whatever parameters, is among these node ids."""
    return any(node == test or node.startswith(f"{test}[") for node in nodes)


def apply(bug: Bug, copy: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    """Apply a patch, or take it back."""
    outside_git = {"GIT_CEILING_DIRECTORIES": str(copy.parent)}
    command = ["git", "apply", "--whitespace=nowarn", *options, str(bug.path)]
    return execute(command, copy, os.environ | outside_git)


def execute(
    command: Sequence[str], folder: Path, variables: Mapping[str, str]
) -> "subprocess.CompletedProcess[str]":
    """Run a command in a folder."""
    return subprocess.run(
        command, cwd=folder, env=variables, check=False, text=True, capture_output=True
    )


def copy_tree(copy: Path) -> Path:
    """Copy what the tests need."""
    copy.mkdir()
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif (ROOT / name).exists():
            shutil.copy2(ROOT / name, copy / name)
    return copy


def environment(copy: Path) -> Mapping[str, str]:
    """Ours, but the copy's modules go before the installed ones, and none is kept compiled."""
    changed = {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    return os.environ | changed | {"TURBOD_CAPTURES": str(CAPTURES)}


def say(words: str) -> None:
    """Print at once, also into a pipe."""
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
