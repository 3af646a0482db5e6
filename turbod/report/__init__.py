"""What `/status` and `/metrics` say: snapshots of the parts, put into words and numbers.

Nothing is counted here, and nothing on the hot path knows of any of this.
"""

from turbod.report.metrics import metrics
from turbod.report.snapshot import Snapshot
from turbod.report.status import status
from turbod.report.summary import summary

__all__ = ["Snapshot", "metrics", "status", "summary"]
