"""Events on their way into tables for other programs, within what Heap's plan allows."""
