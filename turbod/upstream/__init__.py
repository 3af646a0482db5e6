"""Reading Jetstream: sessions, and several merged into one stream without duplicates."""
