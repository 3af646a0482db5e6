"""`python -m turbod` is `turbod`."""

from turbod.cli import main

main()
