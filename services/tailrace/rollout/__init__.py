"""The rollout service: RETRAINING and QUALITY in, CONTROL and the audit trail out."""
