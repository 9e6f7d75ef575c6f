"""Load tests: scenarios that run Tailrace beside references and peers, and compare them by ratio."""
