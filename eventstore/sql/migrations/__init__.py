"""The schema's history, run by `eventstore.sql.migrate`, never by hand."""
