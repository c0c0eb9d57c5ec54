"""What cog.yaml may hold, as a JSON Schema: the facts of Cog's own (config_schema_v1.0 of SDK 0.23).

Cog's file is in its repository only, not in its package. These are its keys, types, patterns and requirements, without
its prose; the deprecated keys are among them, and another check speaks of those.
"""

from typing import Any

_TEXT = {"type": "string"}
_TEXTS = {"type": ["array", "null"], "items": _TEXT}


def _record(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


_SECRET = {
    "type": "object",
    "properties": {"type": {"enum": ["secret"]}, "id": _TEXT, "target": _TEXT},
    "required": ["type", "id", "target"],
}
_COMMAND = {
    "type": "object",
    "properties": {"command": _TEXT, "mounts": {"type": "array", "items": _SECRET}},
    "required": ["command"],
}
_BUILD = _record(
    ["python_version"],
    cuda=_TEXT,
    cudnn=_TEXT,
    gpu={"type": "boolean"},
    python_version={"type": ["string", "number"]},
    python_packages=_TEXTS,
    python_requirements=_TEXT,
    system_packages=_TEXTS,
    pre_install=_TEXTS,
    sdk_version=_TEXT,
    run={"type": ["array", "null"], "items": {"anyOf": [_TEXT, _COMMAND]}},
)
_PATHS = {"type": "array", "items": _TEXT}
_SOURCE = _record(["uri"], uri=_TEXT, include=_PATHS, exclude=_PATHS)
_WEIGHTS = _record(
    ["name", "target", "source"],
    name={"type": "string", "pattern": "^[a-z0-9]+([._-][a-z0-9]+)*$"},
    target=_TEXT,
    source={"oneOf": [_SOURCE, {"type": "array", "items": _SOURCE, "minItems": 1}]},
)
SCHEMA = {
    **_record(
        [],
        build=_BUILD,
        image=_TEXT,
        model=_TEXT,
        run=_TEXT,
        predict=_TEXT,
        train=_TEXT,
        concurrency=_record(["max"], max={"type": "integer"}, default_target={"type": "integer"}),
        environment={
            "type": ["array", "null"],
            "items": {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*=.*$"},
        },
        weights={"type": ["array", "null"], "items": _WEIGHTS},
    ),
    "$schema": "http://json-schema.org/draft-07/schema#",
    "not": {"required": ["run", "predict"]},
}
