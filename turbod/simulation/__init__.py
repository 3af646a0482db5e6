"""A small Bluesky on loopback: Jetstream hosts and an AppView with believable traffic."""
