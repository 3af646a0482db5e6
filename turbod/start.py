"""What keeps turbod from starting, and the exit codes that say whether trying again can help."""

import errno
from typing import Final

FAILED: Final = 1  # what is in the way may go away, or it is our own fault: trying again may help
WRONG_SETTING: Final = 2  # as argparse and POSIX shells have it
WRONG_PLACE: Final = 78  # EX_CONFIG of sysexits.h: only an operator can mend it

_LASTING: Final = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}


class CannotStart(Exception):
    """Something outside turbod is not as it must be: one line that says what, and what to do.

    Attributes:
        code: the exit code.
    """

    def __init__(self, message: str, *, retry: bool) -> None:
        super().__init__(message)
        self.code = FAILED if retry else WRONG_PLACE


def may_pass(error: OSError) -> bool:
    """Tell whether what an operating system's error tells of may be over soon."""
    return error.errno not in _LASTING
