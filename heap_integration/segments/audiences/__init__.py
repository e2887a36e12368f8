"""Audience definitions: what they may say, the SQL they become, who is in them."""
