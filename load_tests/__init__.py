"""Load tests: scenarios, references and what was learnt."""
