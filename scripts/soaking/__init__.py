"""What scripts/soak runs: a real turbod under load and faults for days of its own time.

traffic   events happen as fast as turbod takes them, hour after hour; the clock is ours
troubles  what goes wrong meanwhile
readers   clients that come and go; each keeps a digest of all that it was sent
ledger    what happened against what was delivered
reckoning disk and archive, read plainly, against every client's digest
levels    what must stay level, and the figures that turbod tells against our own
"""
