"""Edges to outside systems, one module each, behind the Protocols of `ports`."""
