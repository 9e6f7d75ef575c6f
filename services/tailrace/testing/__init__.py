"""What tests and demos need: seeded streams, malformed records, laws."""
