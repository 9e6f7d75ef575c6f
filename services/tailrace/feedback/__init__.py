"""The feedback service: predictions and outcomes in; labels, live quality, alarms and requests out."""
