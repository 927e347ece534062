"""Who runs a response, and where: actors, hosts, the supervisor, placement, recovery and the relay."""
