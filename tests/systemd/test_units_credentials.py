"""Credentials: files that root alone can read, passed on by systemd."""

import json

import pytest

from tests.acceptance.process import connected
from tests.acceptance.settling import until
from tests.archive.s3_servers import ACCESS_KEY, SECRET_KEY, rclone_server
from tests.systemd.test_units_reload import entry
from tests.systemd.unit import SERVICE, Unit, reading
from turbod.simulation.world import simulated

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

KEYS = "/etc/turbod/credentials/s3"


def keys(secret: str) -> str:
    """Return them as AWS's tools keep them."""
    return f"[default]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {secret}\n"


async def test_the_buckets_keys_come_from_a_credential(unit: Unit) -> None:
    """With them it writes to the bucket; with others it says so; no line ever has the secret."""
    unit.machine.write(KEYS, keys(SECRET_KEY), mode=0o600)
    since = await unit.machine.journal_cursor()
    with rclone_server() as server:
        bucket = server.bucket()
        async with simulated(seed=61) as simulation:
            unit.settings(
                *reading(simulation),
                "[archive]",
                f'location = "s3://{bucket}/here"',
                "[s3]",
                f'endpoint = "{server.endpoint}"',
            )
            await unit.start()
            await connected(simulation)

            async def is_ours() -> bool:
                found = server.client().list_objects_v2(Bucket=bucket)
                return bool(found.get("KeyCount"))

            await until(is_ours, seconds=30, what="turbod wrote to the bucket")
            unit.machine.write(KEYS, keys("wrong"), mode=0o600)
            await unit.run("systemctl", "restart", SERVICE)

            async def is_told() -> bool:
                return bool(json.loads((await unit.get("/readyz"))[1])["archive"] != "ok")

            await until(is_told, seconds=30, what="what is wrong")
    said = "\n".join(str(entry) for entry in await unit.journal(since=since))
    assert SECRET_KEY not in said


async def test_tokens_may_be_a_credential(unit: Unit) -> None:
    """Without a setting that names it; then nobody else on the machine can read it."""
    token = "turbod_" + "A" * 43
    unit.machine.write("/etc/turbod/credentials/tokens", entry("alice", token), mode=0o600)
    await unit.start()
    assert (await unit.get("/records?cursor=0"))[0] == 401
    answer = await unit.get("/records?cursor=0", headers=[f"Authorization: Bearer {token}"])
    assert answer[0] == 200


async def test_a_check_by_root_looks_as_the_service_does(unit: Unit) -> None:
    """As its user, with its data and its credentials, while it runs and before."""
    unit.machine.write(KEYS, keys(SECRET_KEY), mode=0o600)
    for is_running in (False, True):
        if is_running:
            await unit.start()
        said = await unit.run("/usr/local/bin/turbod", "check", check=False)
        told = {line.split()[1]: line for line in said.splitlines()}
        assert told["data"].startswith("ok"), said
        assert "/var/lib/turbod: writable" in told["data"]
        assert ("in use by a running turbod" in told["data"]) is is_running
        assert "turbod_s3" in told["credentials"], said
        assert "/etc/turbod/turbod.toml" in told["settings"], said
        assert said.splitlines()[-1].startswith("turbod serve would not work"), "there is no host"
