"""The published description of every route (OpenAPI 3.1), made from what the routes say themselves."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema
from starlette.routing import BaseRoute

from server.web.routes import Answer, Body, Operation, Socket, Terms

Json = dict[str, Any]
_REFS = "#/components/schemas/{model}"
_VALIDATION: JsonSchemaMode = "validation"
_ERROR: Json = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
        }
    },
}
_REFUSED: Json = {
    "description": "Refused: `code` is stable, `message` is for people.",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
}
_SECURITY = {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}


def describe(routes: Iterable[BaseRoute], version: str, *, secured: bool) -> Json:
    """Return the document of those `routes` that have terms; `secured`: they ask for tokens."""
    operations = [route for route in routes if isinstance(route, Operation)]
    sockets = [route for route in routes if isinstance(route, Socket)]
    every = [terms for route in operations for terms in route.terms.values()]
    asked = [m for terms in every for m in (*_models(terms.takes), terms.query) if m is not None]
    asked += [socket.query for socket in sockets if socket.query is not None]
    unique = list(dict.fromkeys(asked))
    refs, shared = models_json_schema([(m, _VALIDATION) for m in unique], ref_template=_REFS)
    schemas = {model: refs[model, _VALIDATION] for model in unique}
    definitions: Json = shared.get("$defs", {})
    paths: dict[str, Json] = {}
    for route in operations:
        for method, terms in route.terms.items():
            said = _operation(route, method, terms, _Schemas(schemas, definitions))
            if secured and route.access is not None:
                said["security"] = [{"token": [route.access]}]
            paths.setdefault(route.path, {})[method.lower()] = said
    return {
        "openapi": "3.1.0",
        "info": {"title": "portraittalk", "version": version},
        "paths": paths,
        "x-websockets": {s.path: _socket(s, _Schemas(schemas, definitions)) for s in sockets},
        "components": {
            "schemas": {**definitions, "Error": _ERROR},
            **({"securitySchemes": {"token": _SECURITY}} if secured else {}),
        },
    }


class _Schemas:
    """Where the schema of a model is."""

    def __init__(self, refs: dict[type[BaseModel], Json], definitions: Json) -> None:
        self._refs, self._definitions = refs, definitions

    def of(self, models: Sequence[type[BaseModel]]) -> Json:
        """The schema of a body that is one of `models`."""
        each = [self._refs[model] for model in models]
        return each[0] if len(each) == 1 else {"anyOf": each}

    def query(self, model: type[BaseModel] | None) -> list[Json]:
        """The fields of `model` as parameters of an address."""
        if model is None:
            return []
        name = self._refs[model]["$ref"].rpartition("/")[2]
        schema = self._definitions[name]
        required = schema.get("required", [])
        return [
            {"name": name, "in": "query", "required": name in required, "schema": about}
            for name, about in schema["properties"].items()
        ]


def _models(body: Body | None) -> tuple[type[BaseModel], ...]:
    if body is None or isinstance(body, str):
        return ()
    return body if isinstance(body, tuple) else (body,)


def _operation(route: Operation, method: str, terms: Terms, schemas: _Schemas) -> Json:
    """What is published of one method."""
    said = getattr(route.endpoint, method.lower(), route.endpoint)
    parameters: list[Json] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in route.param_convertors
    ]
    parameters += schemas.query(terms.query)
    parameters += [
        {"name": name, "in": place, "schema": {"type": "string"}}
        for place, names in (("query", terms.names), ("header", terms.headers))
        for name in names
    ]
    about: Json = {
        **_summary(said),
        "parameters": parameters,
        "responses": {str(k): _answer(v) for k, v in terms.gives.items()},
    }
    about["responses"]["default"] = _REFUSED
    if isinstance(terms.takes, str):
        content: Json = {terms.takes: {}}
        about["requestBody"] = {"required": True, "content": content}
    elif terms.takes is not None:
        content = {"application/json": {"schema": schemas.of(_models(terms.takes))}}
        about["requestBody"] = {"required": True, "content": content}
    return about


def _summary(said: object) -> Json:
    first, _, rest = (inspect.getdoc(said) or "").partition("\n\n")
    about: Json = {"summary": " ".join(first.split())}
    return {**about, "description": rest} if rest else about


def _answer(answer: Answer) -> Json:
    if answer is None:
        return {"description": "Done."}
    if isinstance(answer, str):
        return {"description": "Done.", "content": {answer: {}}}
    schema: Json = {"type": "object", "required": list(answer)}
    return {"description": "Done.", "content": {"application/json": {"schema": schema}}}


def _socket(route: Socket, schemas: _Schemas) -> Json:
    asks = {} if route.access is None else {"x-scope": route.access}
    return {**_summary(route.endpoint), "parameters": schemas.query(route.query), **asks}
