"""Where archives lie: a folder, a bucket, another turbod. Keys and bytes, nothing of the format."""
