"""The inference service: FEATURES in, PREDICTIONS out, exactly once."""
