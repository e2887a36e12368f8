"""The hub between Heap and everything a company connects to it."""
