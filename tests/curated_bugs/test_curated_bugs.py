"""The tests can fail: every curated bug is noticed when it is put in."""

from pathlib import Path

import pytest

from tests.curated_bugs.prove import HERE, ROOT, Bug, Copies, copy_tree, prove

PATCHES = sorted(HERE.glob("*.patch"))
SECONDS = 900
JOBS = 2


@pytest.mark.slow
@pytest.mark.timeout(SECONDS)
def test_every_curated_bug_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copies = Copies()
    for number in range(JOBS):
        copies.put(copy_tree(tmp_path / str(number)))
    code = prove([Bug(path) for path in PATCHES], copies, jobs=JOBS)
    assert code == 0, capsys.readouterr().out


@pytest.mark.parametrize("path", PATCHES, ids=lambda path: path.stem)
def test_every_patch_says_what_is_wrong_and_which_tests_notice(path: Path) -> None:
    says, notice, blank, diff = path.read_text().split("\n", 3)
    assert says.endswith(".")
    assert blank == ""
    assert notice.startswith("Noticed by: tests/")
    assert diff.startswith("diff --git a/turbod/"), "only turbod itself is made wrong"
    for node in Bug(path).tests:
        file, _, name = node.partition("::")
        assert f"def {name}(" in (ROOT / file).read_text(), node


def test_the_tables_name_every_patch_and_no_other() -> None:
    rows = [row for row in (HERE / "README.md").read_text().splitlines() if row.startswith("| ")]
    named = {word for row in rows for word in row.rpartition(" | ")[2].split("`")[1::2]}
    assert named == {path.stem for path in PATCHES}
