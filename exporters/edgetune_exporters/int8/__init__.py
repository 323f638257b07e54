"""The frozen prefix in 8 bits: which operations, which ranges, and the graph."""
