"""The deterministic simulator: a whole cluster, its clients and its misfortunes in one event loop.

The parts are the real ones; only what they reach through a port is simulated: the database's and the bus's
connections, Ray, the upstreams, the clock and chance.  One number, the seed, decides everything.

Its log is the one in memory, never SQL: a database works in threads and processes of its own, whose order no
seed decides, so the same seed would not give the same log.  That the stores in SQL behave like the one in
memory is what the contract suite and the machines of `tests/property` are for, which run on all of them.
"""
