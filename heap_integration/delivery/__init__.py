"""The one engine that sends records in batches and keeps what became of each."""
