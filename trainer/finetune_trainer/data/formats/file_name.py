"""The format that a file's name says."""

import re
from typing import Final

from finetune_trainer.contract.recipe.dataset import DatasetFormat

_BY_SUFFIX: Final = {
    ".jsonl": DatasetFormat.JSONL,
    ".ndjson": DatasetFormat.JSONL,
    ".json": DatasetFormat.JSON,
    ".csv": DatasetFormat.CSV,
    ".tsv": DatasetFormat.TSV,
    ".tab": DatasetFormat.TSV,
    ".txt": DatasetFormat.TEXT,
    ".text": DatasetFormat.TEXT,
    ".parquet": DatasetFormat.PARQUET,
    ".pq": DatasetFormat.PARQUET,
}


def format_of_name(name: str) -> DatasetFormat | None:
    """The format of a file name's suffix, `.gz` and `.zst` ignored; None if no format has it."""
    stem = re.sub(r"\.(gz|zst|zstd)$", "", name.lower())
    return _BY_SUFFIX.get(stem[stem.rfind(".") :] if "." in stem else "")
