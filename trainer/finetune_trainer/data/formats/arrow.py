"""Access to the optional package pyarrow. It is imported only for a file that needs it."""

from importlib.util import find_spec
from typing import Any

from finetune_trainer.contract.failure import FailureReason, TrainerError


def pyarrow(what: str) -> Any:
    """The module `pyarrow`, with `pyarrow.parquet` loaded.

    Args:
        what: the data that need it, for the message.

    Raises:
        TrainerError: NOT_SUPPORTED, pyarrow is not installed.
    """
    if find_spec("pyarrow") is None:
        raise TrainerError(
            FailureReason.NOT_SUPPORTED,
            f"{what} cannot be read here: pyarrow is not installed. Install finetune-operator[preflight], or convert "
            "the data to jsonl, plain or gzip-compressed",
        )
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    return pa
