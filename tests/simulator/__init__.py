"""The deterministic simulator: a whole cluster, its clients and its misfortunes in one event loop.

The parts are the real ones; only what they reach through a port is simulated: the database's and the bus's
connections, Ray, the upstreams, the clock and chance.  One number, the seed, decides everything.
"""
