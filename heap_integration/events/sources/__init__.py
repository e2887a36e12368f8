"""One adapter a vendor or file format: what arrives becomes an event, or a refusal with its reason."""
