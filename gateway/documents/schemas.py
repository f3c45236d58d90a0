"""JSON schemas of structs as they appear on the wire: msgspec's schemas, with additions. Pure.

The schema of a sent struct differs from that of a received one. In a sent struct every field is present, unless the
struct omits defaults: then a field is present or absent, and never null.
"""

import inspect
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from gateway.documents.examples import FIELDS
from shared.protocol.validation import FOREIGN_ID_PATTERN, SHOWN_USER_ID_PATTERN, USER_ID_PATTERN

Schema = dict[str, Any]

REF = "#/components/schemas/{name}"

# The syntax of ids that others create, without look-around and surrogates, which many validators do not know.
_FOREIGN_ID: Schema = {
    "pattern": r"^[^\s\x00-\x1f\x7f-\x9f\ufeff]([^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f\ufeff])?$",
    "minLength": 1,
    "maxLength": 128,
}
_IDS: dict[str, Schema] = {
    FOREIGN_ID_PATTERN: _FOREIGN_ID,
    USER_ID_PATTERN: _FOREIGN_ID | {"not": {"pattern": "^(me|deleted-user)$|^system:"}},
    SHOWN_USER_ID_PATTERN: _FOREIGN_ID | {"not": {"pattern": "^me$|^system:"}},
}
LIST_ELEMENT: Schema = {
    "pattern": r"^[^\s\x00-\x1f\x7f-\x9f\ufeff,]([^\x00-\x1f\x7f-\x9f,]*[^\s\x00-\x1f\x7f-\x9f\ufeff,])?$"
}


def schemas_of(received: Iterable[Any], sent: Iterable[Any]) -> tuple[list[Schema], dict[str, Schema]]:
    """Return the schemas of the types in order, received types first, and the components that they refer to."""
    received, sent = list(received), list(sent)
    found, components = msgspec.json.schema_components([*received, *sent], ref_template=REF)
    outgoing = {kind.__name__: kind for kind in _structs(sent)}
    for name, kind in ({kind.__name__: kind for kind in _structs(received)} | outgoing).items():
        component = components[name]
        _name_fields(component, kind)
        if name in outgoing:
            _as_sent(component, kind)
        _give_examples(name, component)
    return list(map(_plain, found)), {name: _plain(components[name]) for name in sorted(components)}


def _structs(kinds: Iterable[Any]) -> Iterator[type[msgspec.Struct]]:
    """Yield every struct that the types contain."""
    seen: set[type] = set()
    waiting: list[Any] = list(msgspec.inspect.multi_type_info(kinds))
    while waiting:
        match waiting.pop():
            case msgspec.inspect.StructType(cls=kind, fields=fields):
                if kind not in seen:
                    seen.add(kind)
                    yield kind
                    waiting += [field.type for field in fields]
            case msgspec.inspect.UnionType(types=types):
                waiting += types
            case msgspec.inspect.VarTupleType(item_type=item) | msgspec.inspect.ListType(item_type=item):
                waiting.append(item)
            case msgspec.inspect.Metadata(type=kind):
                waiting.append(kind)


def _name_fields(component: Schema, kind: type[msgspec.Struct]) -> None:
    """Replace Python field names in the description by wire names."""
    del component["title"]
    if not (kind.__doc__ or "").strip():
        component.pop("description", None)
        return
    text = inspect.cleandoc(component["description"])
    for field in msgspec.structs.fields(kind):
        text = text.replace(f"`{field.name}`", f"`{field.encode_name}`")
    component["description"] = text


def _as_sent(component: Schema, kind: type[msgspec.Struct]) -> None:
    properties: dict[str, Schema] = component["properties"]
    absent = {field.encode_name for field in msgspec.structs.fields(kind) if field.default is msgspec.UNSET}
    for schema in properties.values():
        default = schema.pop("default", ...)
        if kind.__struct_config__.omit_defaults and default is None:
            options = [option for option in schema.pop("anyOf", [schema]) if option.get("type") != "null"]
            schema |= options[0] if len(options) == 1 else {"anyOf": options}
    if not kind.__struct_config__.omit_defaults:
        component["required"] = [name for name in properties if name not in absent]


def _give_examples(struct: str, component: Schema) -> None:
    for name, schema in component["properties"].items():
        known = FIELDS.get(f"{struct}.{name}", FIELDS.get(name, ...))
        if known is not ... and "$ref" not in schema and "enum" not in schema:
            schema["examples"] = [known]


def _plain(schema: Any) -> Any:
    """Return the schema with portable regular expressions and without empty `required` lists."""
    if isinstance(schema, list | tuple):
        return [_plain(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {name: _plain(value) for name, value in schema.items() if (name, value) != ("required", [])}
    if isinstance(pattern := plain.get("pattern"), str):
        plain |= _IDS.get(pattern) or {"pattern": pattern.replace(r"\Z", "$")}
    return plain


# Examples -----------------------------------------------------------------------------------------------------------


def example_of(schema: Schema, components: dict[str, Schema]) -> Any:
    """Return a value that matches the schema, built from the examples of its fields."""
    if "$ref" in schema:
        return example_of(components[schema["$ref"].rpartition("/")[2]], components)
    for known in ("const", "default"):
        if schema.get(known) is not None:
            return schema[known]
    if "examples" in schema or "enum" in schema:
        return (schema.get("examples") or schema["enum"])[0]
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            return example_of(schema[choice][0], components)
    match schema.get("type"):
        case "object":
            properties = schema.get("properties", {})
            return {name: example_of(inner, components) for name, inner in properties.items()}
        case "array":
            return [example_of(schema["items"], components)]
        case "string":
            return "text"
        case "boolean":
            return True
        case _:
            return schema.get("minimum", 1)
