"""A budget: what each mechanism costs the process that does it."""
