"""The ops service: what the loop is doing, and the actions people may take. Holds no truth of its own."""
