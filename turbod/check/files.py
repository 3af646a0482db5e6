"""Looks at files that settings and environment name: exclusion list, tokens, credentials."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import trio

from turbod import exclusion
from turbod.check.finding import Finding, fault, ok, warning
from turbod.config import ConfigError, Settings
from turbod.server import tokens

# Where AWS's tools look for keys, if these are set; a file that is not there they pass over.
_AWS_FILES: Final = ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "AWS_CA_BUNDLE")
_CREDENTIALS: Final = "CREDENTIALS_DIRECTORY"  # systemd.exec(5)


async def look_at_exclusions(settings: Settings) -> list[Finding]:
    """Return whether the exclusion list can be read, and what in it is no DID."""
    if not settings.exclude:
        return []
    return [await trio.to_thread.run_sync(_list, settings.exclude, abandon_on_cancel=True)]


async def look_at_tokens(settings: Settings) -> list[Finding]:
    """Return who may connect."""
    return [await trio.to_thread.run_sync(_tokens, settings, abandon_on_cancel=True)]


async def look_at_credentials(settings: Settings) -> list[Finding]:
    """Return whether the files with keys can be read."""

    def see() -> list[Finding]:
        is_bucket = settings.archive.location.startswith("s3://")
        return [*_aws(os.environ if is_bucket else {}), *_directory(os.environ)]

    return await trio.to_thread.run_sync(see, abandon_on_cancel=True)


def _list(file: str) -> Finding:
    try:
        listed = exclusion.parse(exclusion.text_of(Path(file)))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        todo = "turbod does not start without it: mend it, or unset exclude"
        return fault("exclude", f"{file}: {reason}", todo)
    found = f"{file}: {len(listed.dids)} DIDs"
    if not listed.ignored:
        return ok("exclude", found)
    first = [str(number) for number, _ in listed.first_ignored]
    todo = f"mend line {', '.join(first)}{' and more' * (listed.ignored > len(first))}"
    return warning("exclude", f"{found}, and {listed.ignored} lines that are none", todo)


def _tokens(settings: Settings) -> Finding:
    try:
        known, file = tokens.read(settings, os.environ), tokens.file_of(settings, os.environ)
    except ConfigError as error:
        return fault("tokens", str(error), "turbod does not start without them")
    if known is None:
        return ok("tokens", "none: whoever reaches the port may connect")
    return ok("tokens", f"{file}: {len(known)} may connect, and nobody else")


def _aws(environment: Mapping[str, str]) -> list[Finding]:
    findings = []
    for name in _AWS_FILES:
        file = environment.get(name)
        if file and not os.access(file, os.R_OK):
            why = "not for this user to read" if Path(file).exists() else "no such file"
            findings.append(warning("credentials", f"{name}: {file}: {why}", "correct it"))
    return findings


def _directory(environment: Mapping[str, str]) -> list[Finding]:
    """Return what systemd passed on; nothing where it did not start us."""
    folder = environment.get(_CREDENTIALS)
    if not folder:
        return []
    try:
        names = sorted(entry.name for entry in Path(folder).iterdir())
    except OSError as error:
        todo = "see LoadCredential= in the unit"
        return [fault("credentials", f"{folder}: {error.strerror}", todo)]
    unreadable = [name for name in names if not os.access(Path(folder) / name, os.R_OK)]
    if unreadable:
        found = f"{folder}: {', '.join(unreadable)} not for this user to read"
        return [fault("credentials", found, "see LoadCredential= in the unit")]
    return [ok("credentials", f"{folder}: {', '.join(names) or 'none'}")]
