"""The response aggregate: requests, commands, events, state, decisions and projections."""
