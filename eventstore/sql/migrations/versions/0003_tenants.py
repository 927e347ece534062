"""One tenant's streams in the order of their creation, without a look at anybody else's."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_index("streams_tenant", "streams", ["tenant", "created"])
