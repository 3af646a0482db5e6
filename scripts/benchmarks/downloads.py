"""boto3's own download of whole objects, four at once, for comparison: into memory, and dropped.

`python -m benchmarks.downloads ENDPOINT BUCKET KEY ...`
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import boto3
from botocore.config import Config

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

THREADS: Final = 4


def main() -> None:
    """Download, and say how many bytes there were."""
    endpoint, bucket, *keys = sys.argv[1:]
    config = Config(s3={"addressing_style": "path"}, response_checksum_validation="when_required")
    client: S3Client = boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", config=config
    )

    def size_of(key: str) -> int:
        return len(client.get_object(Bucket=bucket, Key=key)["Body"].read())

    with ThreadPoolExecutor(THREADS) as threads:
        sys.stdout.write(f"{sum(threads.map(size_of, keys))}\n")


if __name__ == "__main__":
    main()
