"""Files of the device side: profiles, bundles, checkpoints, deltas; written atomically."""
