"""The archive: every hour of the log as one compressed object, in a folder or an S3 bucket.

Owns the objects' format, where each hour lies (waiting on this disk, verified, in the store), the
way there, and reading back. It never gives a cursor and never writes a record: that is the log's.
"""
