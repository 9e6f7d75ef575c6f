"""Embedded mode: Kafka, Redis and the services on this machine, for trying, testing and replaying."""
