"""Views for events: references, the AppView, the cache, and records in order per DID."""
