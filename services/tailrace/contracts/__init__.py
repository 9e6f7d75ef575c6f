"""What travels: record types and topics."""
