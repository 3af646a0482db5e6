"""`turbod compare`: two streams side by side, which is ahead, what only one has, in words.

A stream is read (`streams`), each event of it is reduced to what is compared (`seen`), and counted
(`comparison`, with `pairing`, `order` and `delays`). What the counts mean `verdicts` decides. All
of these but `streams` are pure: times are given to them.
"""
