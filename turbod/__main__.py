"""`python -m turbod` is `turbod`, and what cannot wait until all else is loaded."""

import signal
import sys


def main() -> None:
    """Run the command line.

    To load all of it takes a second on a slow machine, in which a SIGHUP would end the service, for
    good: systemd takes that for an orderly end. `serve` hears it when it can read settings again.
    """
    if sys.argv[1:2] == ["serve"]:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    from turbod import cli  # noqa: PLC0415 - see above

    cli.main()


if __name__ == "__main__":
    main()
