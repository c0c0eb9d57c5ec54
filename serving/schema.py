"""The OpenAPI document that the Cog CLI puts into an image, made without the CLI.

Without `.cog/openapi_schema.json` in its working folder Cog's server validates no input and streams nothing. The CLI
reads predict.py's source; here the SDK's own inspector imports it. That inspector is private: it is used in this one
function, and a test holds what comes out.
"""

from typing import Any

PATH = ".cog/openapi_schema.json"


def openapi() -> dict[str, Any]:
    """The parts of the document that the server reads, laid out as the CLI lays them out.

    `seed: null` is refused although `seed` is nullable: the server validates by JSON Schema, which does not know that
    word. Clients leave the key out.
    """
    from cog._inspector import create_predictor

    predictor = create_predictor("replicate_deployment.predict", "Predictor")
    fields = predictor.inputs.values()
    inputs = {
        "title": "Input",
        "type": "object",
        "properties": {field.name: _property(field) for field in fields},
        "required": [field.name for field in fields if field.default is None and not _optional(field)],
    }
    response = {
        "title": "PredictionResponse",
        "type": "object",
        "properties": {
            "input": {"$ref": "#/components/schemas/Input"},
            "output": {"$ref": "#/components/schemas/Output"},
            "status": {"type": "string", "enum": ["starting", "processing", "succeeded", "canceled", "failed"]},
            "error": {"type": "string"},
            "metrics": {"type": "object"},
        },
    }
    request = {"type": "object", "properties": {"input": {"$ref": "#/components/schemas/Input"}}}
    predict = {
        "summary": "Predict",
        "operationId": "predict_predictions_post",
        "requestBody": {"content": _json({"$ref": "#/components/schemas/PredictionRequest"})},
        "responses": {
            "200": {"description": "Done", "content": _json({"$ref": "#/components/schemas/PredictionResponse"})},
            "422": {"description": "An input is invalid"},
        },
        "x-cog-streaming": True,  # what @streaming on `run` makes the CLI write; it opens server-sent events
    }
    return {
        "openapi": "3.0.2",
        "info": {"title": "Cog", "version": "0.1.0"},
        "paths": {"/predictions": {"post": predict}},
        "components": {
            "schemas": {
                "Input": inputs,
                "Output": predictor.output.json_type(),
                "PredictionRequest": request,
                "PredictionResponse": response,
            }
        },
    }


def _optional(field: Any) -> bool:
    return str(field.type.repetition.name).startswith("OPTIONAL")


def _property(field: Any) -> dict[str, Any]:
    facts = {
        "default": field.default,
        "description": field.description,
        "minimum": field.ge,
        "maximum": field.le,
        "nullable": _optional(field) or None,
    }
    title = field.name.replace("_", " ").title()
    found = {name: value for name, value in facts.items() if value is not None}
    return {"x-order": field.order, "title": title, **field.type.json_type(), **found}


def _json(schema: dict[str, str]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
