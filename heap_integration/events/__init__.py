"""An event's life: read from a source, prepared for Heap, shown before it is sent."""
