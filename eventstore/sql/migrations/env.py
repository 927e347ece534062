"""What Alembic runs: the revisions, in one transaction of the connection that is handed to it."""

from alembic import context

from eventstore.sql.schema import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    # SQLite rolls DDL back as well, once the driver is kept from committing on its own.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
