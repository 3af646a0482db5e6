"""History for many readers at once: objects, then the log, without a seam."""
