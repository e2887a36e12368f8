"""The warehouses that Heap's data and the models can live in, one file a system."""
