"""CEL expressions that several rules use."""

from finetune_trainer.contract.rule import literal


def cel_value(value: object) -> str:
    """The CEL literal of a string or a list of strings."""
    return f"[{', '.join(map(cel_value, value))}]" if isinstance(value, list) else literal(str(value))
