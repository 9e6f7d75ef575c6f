"""Arguments of every peer; nothing here is imported that a peer's own environment may lack."""

from __future__ import annotations

import argparse


def parsed() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--bootstrap", required=True, help="address of the broker")
    parser.add_argument("--source", required=True, help="topic to read")
    parser.add_argument("--sink", required=True, help="topic to write; also names the consumer group")
    parser.add_argument("--model", default="", help="ONNX file")
    parser.add_argument("--directory", default=".", help="folder for state")
    parser.add_argument("--mode", default="", help="variant of the peer, where it has several")
    return parser.parse_args()
