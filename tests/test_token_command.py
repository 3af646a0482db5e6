"""`turbod token`: the token is shown once, and its entry can be appended to the file."""

import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from turbod import bearer, cli
from turbod.config import ConfigError
from turbod.server.tokens import parse


def made(name: str, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """Return the entry and the token."""
    with pytest.raises(SystemExit) as caught:
        cli.main(["token", name])
    assert caught.value.code == 0
    said = capsys.readouterr()
    return said.out, said.err.splitlines()[-1]


def test_the_entry_lets_the_token_in_and_does_not_hold_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    entries = [made(name, capsys) for name in ("alice", "bob-2_x")]
    found = parse("".join(entry for entry, _ in entries).encode(), "tokens.toml")
    for (entry, token), name in zip(entries, ("alice", "bob-2_x"), strict=True):
        assert token not in entry
        assert re.fullmatch(r"turbod_[A-Za-z0-9_-]{43}", token)
        known = found.find(token)
        assert known is not None
        assert known.name == name


def test_each_is_another(capsys: pytest.CaptureFixture[str]) -> None:
    assert len({made("alice", capsys) for _ in range(20)}) == 20


@pytest.mark.parametrize("name", ["", "a b", "a.b", "ä", "[a]", "a" * 41, bearer.make(), "a\nb"])
def test_a_name_that_can_be_none_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["token", name])
    assert caught.value.code == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert "1 to 40 letters, digits, _ and -" in errors[0]


def test_appended_to_a_file_the_token_is_still_shown(tmp_path: Path) -> None:
    file = tmp_path / "tokens.toml"
    file.touch(stat.S_IRUSR | stat.S_IWUSR)
    with file.open("a") as output:
        result = subprocess.run(
            [sys.executable, "-m", "turbod", "token", "alice"],
            cwd=Path(__file__).parents[1],
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            check=True,
        )
    token = result.stderr.splitlines()[-1]
    assert parse(file.read_bytes(), "tokens.toml").find(token) is not None


def test_where_the_entry_cannot_be_written_that_is_said() -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "turbod", "token", "alice"],
            cwd=Path(__file__).parents[1],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "turbod: standard output: No space left" in result.stderr
    assert "turbod_" not in result.stderr


@pytest.mark.parametrize("text", ["a b", "a\nb", "ä", "a,b", "=", "a" * 1003])
def test_what_can_be_no_token_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        bearer.from_environment({bearer.VARIABLE: text})
    assert str(caught.value).startswith("TURBOD_TOKEN: expected a token")
    assert repr(text) not in str(caught.value)


def test_without_the_variable_or_with_an_empty_one_there_is_no_token() -> None:
    assert bearer.from_environment({}) is None
    assert bearer.from_environment({bearer.VARIABLE: " \n"}) is None
    assert bearer.from_environment({bearer.VARIABLE: "abc-._~+/==\n"}) == "abc-._~+/=="
