"""Faults on a running system, chosen by a seed, while clients listen; see docs/reliability.md."""
