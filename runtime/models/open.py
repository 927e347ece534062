"""Opens models: from what was resolved or recorded, and the keys in the environment."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from runtime.catalog import Catalog, Resolved, Upstream
from runtime.model import Model, ModelError, ModelRequest
from runtime.models.http import Connections, Http
from runtime.models.openai_chat import OpenAIChatModel
from runtime.models.openai_responses import OpenAIResponsesModel
from runtime.models.reader import NONSENSE
from runtime.models.simulated import SimulatedModel

log = logging.getLogger(__name__)

# A process serves few upstreams; only a catalog that is reloaded again and again opens more.
OPEN_MAX = 256


class ModelPool:
    """A process's open models: one for each upstream, and the connections that all of them share."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self._connections = Connections()
        self._open: dict[str, tuple[Upstream, Model]] = {}

    def open(self, resolved: Resolved | Upstream) -> Model:
        """The model that reaches `resolved`.  Raises `ModelError` (`upstream_auth`) where its key is missing.

        It stays the pool's: do not close it.
        """
        upstream = resolved.upstream if isinstance(resolved, Resolved) else resolved
        known = self._open.get(upstream.name)
        if known is not None and known[0] == upstream:
            return known[1]
        model = open_model(upstream, self._env, self._connections)
        if len(self._open) >= OPEN_MAX:
            # Models hold no connection of their own, so the oldest is simply forgotten.
            del self._open[next(iter(self._open))]
        self._open[upstream.name] = (upstream, model)
        return model

    async def count_tokens(self, resolved: Resolved, request: ModelRequest) -> int | None:
        """How many tokens the upstream says that a request's input has, or None where it does not say."""
        try:
            model = self.open(resolved)
            if isinstance(model, OpenAIChatModel | OpenAIResponsesModel):
                return await model.count_tokens(request)
        except (ModelError, *NONSENSE) as reason:
            log.debug("the upstream %s counts no tokens: %s", resolved.upstream.name, reason)
        return None

    async def ids(self, catalog: Catalog) -> Sequence[str]:
        """All model ids to list: the catalog's own, and what the upstream behind `*` has, if it answers."""
        if catalog.wildcard is None:
            return catalog.ids()
        try:
            listed = await self.open(catalog.wildcard.upstream).models()
        except ModelError:
            listed = ()  # It may be away for a while; its models are asked for by name all the same.
        return tuple(dict.fromkeys([*catalog.ids(), *listed]))

    async def aclose(self) -> None:
        """Close every connection."""
        await asyncio.gather(*(model.aclose() for _, model in self._open.values()))
        await self._connections.aclose()


def open_model(upstream: Upstream, env: Mapping[str, str], connections: Connections) -> Model:
    """A model of `upstream`, with its keys from `env`.  Raises `ModelError` where one is missing."""
    match upstream.adapter:
        case "simulated":
            return SimulatedModel()
        case "openai_chat":
            return OpenAIChatModel(Http(upstream, connections, env))
        case "openai_responses":
            return OpenAIResponsesModel(Http(upstream, connections, env))
