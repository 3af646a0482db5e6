"""Sealed hours on their way into the store: verified, never overwritten, within bounds."""
