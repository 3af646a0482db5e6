from pathlib import Path

from tests.server.harness import did, post, serving


async def test_the_first_message_is_the_cursor_and_then_come_records(tmp_path: Path) -> None:
    async with serving(tmp_path) as harness, harness.subscribe() as subscriber:
        first = await subscriber.news()
        assert (first["$type"], first["reason"], first["cursor"]) == ("#cursor", "connect", 0)
        await harness.publish(*(post(n, author=did(n)) for n in range(250)))
        records = await subscriber.records(250)
        assert [record["message"]["commit"]["rkey"] for record in records] == [
            f"k{n}" for n in range(250)
        ]
