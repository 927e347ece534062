"""The models and agents that can be asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runtime.catalog import Catalog, UnknownModel
from serve_app.call import Call
from serve_app.errors import ApiError, Problem
from serve_app.router import Endpoint


class ModelRoutes:
    """`/v1/models` and `/v1/models/{id}`; an id may hold slashes."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog

    def endpoints(self) -> Sequence[Endpoint]:
        """The rows of the table."""
        return (
            Endpoint("GET", "/v1/models", self.index, "List the models and agents"),
            Endpoint("GET", "/v1/models/{id:path}", self.show, "Show one model or agent"),
        )

    async def index(self, call: Call) -> None:
        """Every id that the catalog names."""
        data = [self._model(model) for model in self.catalog.ids()]
        await call.answer_json({"object": "list", "data": data})

    async def show(self, call: Call) -> None:
        """One of them, or any id that a wildcard reaches."""
        try:
            await call.answer_json(self._model(call.params["id"]))
        except UnknownModel as error:
            raise ApiError(Problem(404, error.message, code="model_not_found", param="model")) from None

    def _model(self, model: str) -> dict[str, Any]:
        resolved = self.catalog.resolve(model)
        owner = "rayspond" if resolved.agent is not None else resolved.upstream.name
        return {"id": model, "object": "model", "created": 0, "owned_by": owner}
