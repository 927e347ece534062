"""HTTP, SSE and the command line; the composition root.  Nothing here writes to the log."""
