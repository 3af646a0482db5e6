"""The data folder: one process, one format."""

from pathlib import Path

import pytest

from turbod import data_folder
from turbod.start import WRONG_PLACE, CannotStart


def test_a_folder_is_made_and_says_its_format(tmp_path: Path) -> None:
    data = tmp_path / "a" / "b"
    with data_folder.held(data):
        assert (data / "format").read_text() == "1\n"
        assert (data / "live").is_dir()
    with data_folder.held(data):
        pass


def test_a_folder_from_before_the_number_is_of_the_first_format(tmp_path: Path) -> None:
    (tmp_path / "live").mkdir()
    with data_folder.held(tmp_path):
        assert (tmp_path / "format").read_text() == "1\n"


def test_a_newer_folder_is_refused_and_not_touched(tmp_path: Path) -> None:
    """Going back to an older turbod must not spoil what a newer one wrote."""
    (tmp_path / "format").write_text("2\n")
    with pytest.raises(CannotStart, match=r"newer turbod, in format 2.*install") as refused:
        data_folder.held(tmp_path).__enter__()
    assert refused.value.code == WRONG_PLACE
    assert (tmp_path / "format").read_text() == "2\n"


@pytest.mark.parametrize("text", ["", "one", "0", "-1", "1.5", "²"])
def test_a_format_that_is_no_number_is_for_an_operator(tmp_path: Path, text: str) -> None:
    (tmp_path / "format").write_text(text)
    with pytest.raises(CannotStart, match="holds no number") as refused:
        data_folder.held(tmp_path).__enter__()
    assert refused.value.code == WRONG_PLACE


def test_a_second_holder_is_refused_and_may_try_again(tmp_path: Path) -> None:
    """Where a service is restarted the old process may still be ending."""
    with data_folder.held(tmp_path):
        with pytest.raises(CannotStart, match="another turbod") as refused:
            data_folder.held(tmp_path).__enter__()
        assert refused.value.code == 1
    with data_folder.held(tmp_path):
        pass


def test_a_file_in_the_place_of_the_folder_is_for_an_operator(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(CannotStart, match="not a folder") as refused:
        data_folder.held(path).__enter__()
    assert refused.value.code == WRONG_PLACE
