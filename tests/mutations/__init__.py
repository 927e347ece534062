"""Mechanisms of safety, removed one at a time: a test must fail for each of them."""
