"""What a response is and how it proceeds: pure decisions, folds and projections.

Nothing here imports Ray, SQL, NATS or an HTTP server, or reads a clock or a source of randomness:
the outside comes in through ports.
"""
