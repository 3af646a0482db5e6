"""What turbod costs, measured end to end in processes of its own; run with `scripts/bench`."""
