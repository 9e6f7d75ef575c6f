"""Measurements that need no Kafka."""
