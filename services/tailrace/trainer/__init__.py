"""The trainer service: requests in; candidates, proved and registered, or refusals with reasons out."""
