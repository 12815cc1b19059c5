"""Which fields of a FineTuneJob a profile may supply, and the models of such a partial spec.

A field that a profile may supply has no default in the CRD: the API server would fill it in, and nobody could tell any
more what the user wrote. Its default is the model's, and its description names it.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, Field, create_model

from finetune_trainer.contract.wire import Wire

SUPPLIED: Mapping[str, tuple[str, ...] | None] = {
    "model": ("tokenSecretRef", "cache", "quantization", "attention"),
    "dataset": ("maxLength", "packing"),
    "lora": ("rank", "alpha", "dropout", "targetModules", "bias", "variant"),
    "training": (
        "epochs",
        "maxSteps",
        "learningRate",
        "scheduler",
        "restarts",
        "minLearningRate",
        "loraPlusRatio",
        "warmup",
        "batchSize",
        "microBatchSize",
        "optimizer",
        "weightDecay",
        "maxGradNorm",
        "neftuneAlpha",
        "gradientCheckpointing",
        "loggingSteps",
    ),
    "checkpoint": None,
    "storage": None,
    "tracking": None,
    "resources": None,
    "scheduling": None,
    "preflight": None,
    "retry": None,
    "retention": None,
    "startDeadlineSeconds": None,
    "activeDeadlineSeconds": None,
    "stallTimeoutSeconds": None,
}
"""Section, or field, of the spec -> its fields that a profile may supply; None for all.

The facts of a job (its model, data, output, method and evaluation) are not among them, nor what starts and stops it.
"""


def section_of(model: type[BaseModel], key: str) -> type[BaseModel] | None:
    """The model of a section whose fields are merged one by one; None of every other field.

    A section that may be absent as a whole, such as a reference to a Secret, is one value: half of one reference and
    half of another would name nothing.
    """
    field = next((item for name, item in model.model_fields.items() if (item.alias or name) == key), None)
    annotation = None if field is None else field.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def partial(model: type[BaseModel], name: str, chosen: Mapping[str, tuple[str, ...] | None]) -> type[Wire]:
    """The model of a partial spec: the chosen fields of a model, none of them required, without defaults and rules.

    The rules over several fields are those of the merged spec. The rules of one value stay.

    Args:
        model: the whole.
        name: name of the new class.
        chosen: which fields, as in `SUPPLIED`.
    """
    fields: dict[str, Any] = {}
    for python_name, field in model.model_fields.items():
        key = field.alias or python_name
        if key not in chosen:
            continue
        inner = section_of(model, key)
        if inner is not None:
            keys = chosen[key]
            below = partial(inner, f"{name}{inner.__name__}", dict.fromkeys(keys if keys is not None else _keys(inner)))
            fields[python_name] = (below | None, Field(None, description=field.description))
        else:
            # Annotated with what the field is checked by, which pydantic keeps beside the annotation.
            annotation: Any = field.annotation
            for check in field.metadata:
                annotation = Annotated[annotation, check]
            extra = field.json_schema_extra
            fields[python_name] = (
                annotation | None,
                Field(None, description=field.description, json_schema_extra=extra),
            )
    made: type[Wire] = create_model(name, __base__=Wire, __doc__=model.__doc__, **fields)
    return made


def supplied_paths(model: type[BaseModel]) -> Iterator[str]:
    """Every field that a profile may supply, by its path on the wire; a section's fields one by one."""
    for key, fields in SUPPLIED.items():
        yield from _paths(model, key, key, fields)


def _paths(model: type[BaseModel], key: str, path: str, chosen: tuple[str, ...] | None) -> Iterator[str]:
    inner = section_of(model, key)
    if inner is None:
        yield path
        return
    for field in chosen if chosen is not None else _keys(inner):
        yield from _paths(inner, field, f"{path}.{field}", None)


def _keys(model: type[BaseModel]) -> tuple[str, ...]:
    return tuple(field.alias or name for name, field in model.model_fields.items())
