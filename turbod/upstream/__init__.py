"""Reading Jetstream: several hosts into one stream, each event once, nothing lost unnoticed.

Owns the sessions, what is asked for on each connect, recognising second copies, and the verdict
whether a hole is a gap. Does not own what becomes of an event (`take` is called with it), nor the
log (asked for identities through `load`), nor where positions are saved (`positions()` says what).
"""
