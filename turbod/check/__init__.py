"""Whether `turbod serve` would work: looks at all it needs, and leaves nothing behind.

A look (machine.py, upstream.py, ...) finds out what there is; what that means is decided in pure
modules (local_verdicts.py, network_verdicts.py). A running turbod is not disturbed: nothing is
locked that it holds, nothing written among what it wrote, and no more asked than by one client.
"""
