"""One port for subscribers and plain GETs: accept, refuse, stream, say goodbye. Never writes."""
