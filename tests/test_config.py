import argparse
import re
from pathlib import Path

import pytest

from turbod import config
from turbod.config import ConfigError, Settings, load, table

REPOSITORY = Path(__file__).parents[1]


def options(*arguments: str) -> dict[str, object]:
    parser = argparse.ArgumentParser()
    config.add_arguments(parser)
    return vars(parser.parse_args(arguments))


def test_without_anything_the_defaults_hold() -> None:
    assert load(options(), {}) == Settings()


def test_the_command_line_beats_the_environment_beats_the_file(tmp_path: Path) -> None:
    file = tmp_path / "turbod.toml"
    file.write_text(
        'listen = "f:1"\ndata = "f"\nappview = "http://f"\n[hydration]\ncalls_per_second = 3'
    )
    environment = {"TURBOD_CONFIG": str(file), "TURBOD_DATA": "e", "TURBOD_APPVIEW": "http://e"}
    settings = load(options("--appview", "http://c"), environment)
    assert (settings.listen, settings.data, settings.appview) == ("f:1", "e", "http://c")
    assert settings.hydration.calls_per_second == 3


def test_lists_are_repeated_options_words_of_a_variable_or_an_array(tmp_path: Path) -> None:
    file = tmp_path / "turbod.toml"
    file.write_text('collections = ["a.b.c", "d.e.*"]')
    expected = ("a.b.c", "d.e.*")
    by_option = options("--collections", "a.b.c", "--collections", "d.e.*")
    assert load(by_option, {}).collections == expected
    assert load(options(), {"TURBOD_COLLECTIONS": "a.b.c d.e.*"}).collections == expected
    assert load(options("--config", str(file)), {}).collections == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--hydration-calls-per-second", "x"],
            "--hydration-calls-per-second was 'x': expected a number from 0.1 to 10000",
        ),
        (
            ["--hydration-concurrent-calls", "1.5"],
            "--hydration-concurrent-calls was '1.5': expected a whole number from 1 to 100",
        ),
        (["--hydration-calls-per-second", "nan"], "was 'nan': expected a number"),
        (["--hydration-calls-per-second", "inf"], "was 'inf': expected a number"),
        (["--server-max-connections", "0"], "was '0': expected a whole number from 1"),
        (["--listen", "8080"], "--listen was '8080': expected HOST:PORT"),
        (
            ["--upstream", "https://a/subscribe"],
            "was 'https://a/subscribe': expected ws",
        ),
        (["--appview", "ftp://a"], "--appview was 'ftp://a'"),
        (["--listen", "127.0.0.1:99999"], "was '127.0.0.1:99999': expected HOST:PORT, the port"),
        (["--listen", "127.0.0.1:65536"], "was '127.0.0.1:65536': expected HOST:PORT, the port"),
        (["--upstream", "ws://a:65536/subscribe"], "expected ws:"),
        (["--upstream", "ws://a:b/subscribe"], "expected ws:"),
        (["--upstream", "ws://[::1/subscribe"], "expected ws:"),
        (["--appview", "http://a:b"], "expected http://HOST or https://HOST"),
        (["--collections", "post"], "--collections was 'post': expected an NSID"),
        (["--collections", "app.bsky.feed.*.x"], "expected an NSID"),
        (
            ["--server-trusted-proxies", "10.0.0.1/8"],
            "--server-trusted-proxies: 10.0.0.1/8 has host bits set; expected addresses or",
        ),
        (["--server-trusted-proxies", "::/129"], "'::/129' does not appear to be"),
        (["--server-trusted-proxies", "10.0.0.256"], "'10.0.0.256' does not appear to be"),
        (["--server-trusted-proxies", "proxy.example"], "was 'proxy.example': expected addresses"),
        (["--log-level", "loud"], "--log-level was 'loud': expected debug, info"),
        (["--config", "/does/not/exist"], "--config /does/not/exist: No such file"),
    ],
)
def test_a_wrong_setting_is_one_line_with_what_it_was_and_what_is_allowed(
    arguments: list[str], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(options(*arguments), {})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("listn = 'a:1'", "listn in "),
        ("[hydration]\ncalls = 1", "hydration.calls in "),
        ("[hydration]\ncalls_per_second = 'x'", "hydration.calls_per_second in "),
        ("collections = 'app.bsky.feed.post'", "collections in "),
        ("listen = ", "not TOML"),
        ("listen = " + "[" * 5000, "not TOML"),
        ("a" + ".a" * 5000 + " = 1", "not TOML"),
        ("listen = " + "1" * 5000, "not TOML"),
        ("[server]\nmax_connections = 0x" + "f" * 5000, "server.max_connections in "),
        ('data = "a\\u0000b"', r"data in .* was 'a\\x00b'"),
        ('exclude = "\\u0000"', "exclude in "),
        ('upstream = ["ws://a\\u0000"]', "upstream in "),
        ('"a\\nb" = 1', "no such setting"),
        ("server = 5", "server in "),
    ],
)
def test_a_wrong_line_in_the_file_names_the_file_and_the_setting(
    tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "turbod.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load(options("--config", str(file)), {})
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--listen", "[::1]:0"],
        ["--listen", "0.0.0.0:65535"],
        ["--upstream", "ws://[::1]:65535/subscribe"],
        ["--upstream", "wss://a.example"],
        ["--appview", "http://[::1]:80"],
        ["--collections", "app.bsky.*"],
    ],
)
def test_addresses_of_every_form_are_taken(arguments: list[str]) -> None:
    load(options(*arguments), {})


@pytest.mark.parametrize(
    ("option", "url"),
    [
        ("--upstream", "wss://secret@a.example/subscribe"),
        ("--upstream", "wss://me:secret@a.example"),
        ("--appview", "https://secret@a.example"),
        ("--s3-endpoint", "https://secret@a.example"),
        ("--server-allowed-origins", "https://secret@a.example"),
    ],
)
def test_no_url_holds_a_login(option: str, url: str) -> None:
    """It would stand wherever the host is named: in the log, in /status, in /metrics."""
    with pytest.raises(ConfigError, match="expected"):
        load(options(option, url), {})


@pytest.mark.parametrize(
    "origin", ["https://*.example", "https://bücher.example", "https://a.example/", "null", "*"]
)
def test_an_origin_that_no_browser_says_is_refused(origin: str) -> None:
    with pytest.raises(ConfigError, match=r"expected https://HOST, in ASCII and without \*"):
        load(options("--server-allowed-origins", origin), {})


@pytest.mark.parametrize(
    "origin", ["https://App.Example:8443", "http://[2001:db8::1]", "http://a_b"]
)
def test_an_origin_that_a_browser_says_is_taken(origin: str) -> None:
    load(options("--server-allowed-origins", origin), {})


def test_a_misspelt_variable_is_refused_with_a_guess() -> None:
    with pytest.raises(ConfigError, match="did you mean TURBOD_LISTEN"):
        load(options(), {"TURBOD_LISTN": "a:1"})


def test_a_misspelt_option_gets_a_guess() -> None:
    assert config.hint("--listn") == "did you mean --listen?"
    assert "--help" in config.hint("--xyzzy")


def test_every_setting_has_help_a_unit_in_its_name_where_it_is_a_number_and_bounds() -> None:
    units = (
        "seconds",
        "bytes",
        "per_second",
        "per_minute",
        "calls",
        "identities",
        "connections",
        "handshakes",
        "dids",
        "address",
        "readers",
    )
    for row in table():
        assert row.help
        assert row.allowed != "text", row.key
        if isinstance(row.default, int | float) and not isinstance(row.default, bool):
            assert row.key.endswith(units), row.key
            assert "from" in row.allowed, row.key


def test_every_setting_is_documented_with_its_default() -> None:
    text = (Path(__file__).parents[1] / "docs" / "settings.md").read_text()
    assert text == config.documentation(), "run: scripts/document-settings"


def test_the_settings_file_for_systemd_has_every_setting_with_its_default() -> None:
    text = (Path(__file__).parents[1] / "systemd" / "turbod.toml").read_text()
    assert text == config.example(), "run: scripts/document-settings"


def test_the_settings_file_changes_nothing_whatever_is_uncommented(tmp_path: Path) -> None:
    file = tmp_path / "turbod.toml"
    lines = config.example().splitlines()
    settings = [number for number, line in enumerate(lines) if re.match("#[a-z]", line)]
    assert len(settings) == len(table())
    for uncommented in ([], *([number] for number in settings), settings):
        file.write_text(
            "\n".join(line[n in uncommented :] for n, line in enumerate(lines)), encoding="utf-8"
        )
        assert load({"config": str(file)}, {}) == Settings(), [lines[n] for n in uncommented]


def test_whole_hours_are_not_public_where_some_records_are_not_to_be_passed_on() -> None:
    with pytest.raises(ConfigError, match=r"archive\.public was true and exclude was set"):
        config.load({"archive.public": "true", "exclude": "dids"}, {})


def test_a_reload_changes_in_place_what_needs_no_restart_and_names_both() -> None:
    current = load(options("--data", "a"), {})
    hydration = current.hydration
    given = options("--data", "b", "--hydration-calls-per-second", "3", "--log-level", "debug")
    found = config.reload(current, load(given, {}))
    assert found.changed == ("log_level", "hydration.calls_per_second")
    assert found.needs_restart == ("data",)
    assert (current.data, current.log_level, hydration.calls_per_second) == ("a", "debug", 3)


def test_a_reload_leaves_the_defaults_as_they_are() -> None:
    current = load(options(), {})
    config.reload(current, load(options("--server-max-connections", "5"), {}))
    assert current.server.max_connections == 5
    assert load(options(), {}).server.max_connections == 2000
    assert config.reload(current, load(options(), {})).changed == ("server.max_connections",)


def test_a_reload_that_finds_nothing_new_changes_nothing() -> None:
    assert config.reload(load(options(), {}), load(options(), {})) == config.Reloaded()


def test_what_the_tests_are_told_by_the_environment_keeps_no_command_from_running() -> None:
    """They start commands of ours, which refuse a variable that looks like a setting."""
    files = [*REPOSITORY.glob("tests/**/*.py"), REPOSITORY / ".ci" / "run"]
    text = "".join(path.read_text() for path in files)
    named = set(
        re.findall(r'environ(?:\.get\(|\[)"(TURBOD_[A-Z_]+)"|export (TURBOD_[A-Z_]+)', text)
    )
    variables = {first or second for first, second in named}
    assert {"TURBOD_AXE", "TURBOD_CAPTURES"} <= variables
    config.load({}, dict.fromkeys(variables - {"TURBOD_CONFIG"}, "x"))
