"""Values that fit a JSON Schema, judged by an independent validator."""

import json
from typing import Any

import jsonschema
import pytest

from runtime.models.json_fit import fit

TREE = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
                "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
            },
            "required": ["name", "children", "next"],
        }
    },
}
SCHEMAS: list[Any] = [
    {},
    {"type": "object"},
    {"type": "string", "minLength": 20, "maxLength": 22},
    {"type": "string", "maxLength": 3},
    {"type": "string", "pattern": "^[A-Z]{3}$"},
    {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}$"},
    {"type": "string", "enum": ["b", "a"]},
    {"const": {"a": [1]}},
    {"type": ["null", "integer"]},
    {"type": "integer", "minimum": 7},
    {"type": "integer", "maximum": -3},
    {"type": "integer", "exclusiveMinimum": 4, "exclusiveMaximum": 6},
    {"type": "integer", "minimum": 10, "multipleOf": 7},
    {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.01},
    {"type": "number", "maximum": -0.5},
    {"type": "boolean"},
    {"type": "null"},
    {"type": "array", "items": {"type": "string"}, "minItems": 3, "uniqueItems": True},
    {"type": "array", "items": {"type": "integer"}, "minItems": 2, "uniqueItems": True},
    {"type": "array", "maxItems": 0},
    {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "boolean"}], "items": False},
    {"anyOf": [{"type": "null"}, {"type": "string", "minLength": 1}]},
    {"oneOf": [{"type": "object", "properties": {"kind": {"const": "a"}}, "required": ["kind"]}]},
    {
        "allOf": [{"properties": {"a": {"type": "integer"}}, "required": ["a"]}, {"required": ["b"]}],
        "type": "object",
    },
    {"type": "object", "required": ["x"], "additionalProperties": {"type": "integer"}},
    {"type": "object", "minProperties": 2},
    {"type": "object", "properties": {"a": {}, "b": {}}, "maxProperties": 1},
    {"properties": {"a": {"type": "string", "format": "email"}}, "additionalProperties": False},
    {"definitions": {"a/b": {"type": "integer"}}, "$ref": "#/definitions/a~1b"},
    {"$ref": "#/$defs/c", "$defs": {"c": {"enum": ["red"]}}, "description": "beside a reference"},
    TREE,
    *(
        {"type": "string", "format": one}
        for one in ("date", "date-time", "time", "uuid", "ipv4", "ipv6", "uri")
    ),
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=json.dumps)
def test_the_value_fits(schema: Any) -> None:
    value = fit(schema)
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    jsonschema.Draft202012Validator(schema, format_checker=checker).validate(value)
    assert fit(schema) == value


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"$ref": "#/$defs/nowhere"},
        {"type": "array", "minItems": 10**12, "items": {"type": "null"}},
        {"type": "object", "properties": {"me": {"$ref": "#"}}, "required": ["me"]},
        {"type": "string", "pattern": "("},
        {"type": "string", "minLength": 10**12},
        {"allOf": [{"$ref": "#"}]},
        {"properties": {f"p{n}": {"$ref": "#"} for n in range(50)}, "required": [f"p{n}" for n in range(50)]},
        {"type": "string", "pattern": "^(a+)+$|(a|a)*b"},
        {"type": "string", "pattern": "a*" * 30 + "b"},
        {"type": "integer", "multipleOf": 0},
        {"enum": {"a": 1}},
        {"minimum": "low"},
        {"properties": ["a"]},
        True,
        "nonsense",
    ],
    ids=json.dumps,
)
def test_a_hostile_schema_ends(schema: Any) -> None:
    assert len(json.dumps(fit(schema))) < 1_000_000
