"""What the page shows beside the moment: the last hours, what went wrong in them, the hours kept.

Looks at the parts from outside, every ten seconds, and keeps what it saw in memory, bounded.
"""
