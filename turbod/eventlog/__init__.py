"""The log: one file an hour, its only writer, its newest part in memory, its readers."""
