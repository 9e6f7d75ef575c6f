"""What all Kafka services share: life cycle, transactional loop, control, dead letters."""
