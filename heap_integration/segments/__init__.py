"""Memberships: where they come from and how far a destination is from them."""
