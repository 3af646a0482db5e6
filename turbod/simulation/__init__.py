"""A small Bluesky on loopback: Jetstream hosts and an AppView with believable traffic.

It owns the traffic that `turbod simulate` shows and that tests and benchmarks read; the daemon
knows nothing of it. In one process with a test:

    async with simulated(hosts=2) as simulation:  # turbod.simulation.world
        simulation.emit(100)                      # events happen; or give a rate
        simulation.jetstreams[1].faults.silent = True
        simulation.appview.fail_next.append("502")
        simulation.everything()                   # all of it, to compare with

Network decides what happens, Index what the AppView knows of it, History what the hosts send.
"""
