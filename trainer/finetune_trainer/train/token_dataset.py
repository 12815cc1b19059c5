"""Token rows on disk: an Arrow file that is mapped into memory, so that the data may be larger than it."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]
from datasets import Dataset
from numpy.typing import NDArray

from finetune_trainer.data.histogram import LengthBin
from finetune_trainer.data.tokenization.tokens import TokenPair, TokenRow
from finetune_trainer.train.micro_batches import IGNORED

_IDS = pa.list_(pa.int32())
_SCHEMA = pa.schema([("input_ids", _IDS), ("labels", _IDS), ("lengths", _IDS)])
_ROWS_A_BATCH = 1000
_MOST_BINS = 20


def write_rows(rows: Iterable[TokenRow | TokenPair], file: Path) -> Any:
    """Writes the rows to `file` and returns them as a `datasets.Dataset` of `input_ids`, `labels` and `lengths`.

    The sequences of a row, one or two, stand one after the other, and `lengths` says how many tokens each has. An
    untrained token has the label -100, and so has the first of a sequence, since nothing comes before it.
    """
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, _SCHEMA) as writer:
        for group in _groups(rows, _ROWS_A_BATCH):
            ids = [[token for sequence in row.sequences for token in sequence.ids] for row in group]
            labels = [[label for sequence in row.sequences for label in _labels(sequence)] for row in group]
            lengths = [[len(sequence.ids) for sequence in row.sequences] for row in group]
            writer.write_batch(pa.record_batch([ids, labels, lengths], _SCHEMA))
    return read_rows(file)


def read_rows(file: Path) -> Any:
    """The dataset of a file that `write_rows` has written."""
    return Dataset.from_file(str(file))


def file_of(rows: Any) -> Path:
    """The file of such a dataset."""
    return Path(rows.cache_files[0]["filename"])


def split_rows(rows: Any, chosen: NDArray[np.bool_], rest: Path, taken: Path) -> tuple[Any, Any]:
    """Such a dataset in two: the rows that are not chosen, in the file `rest`, and the chosen ones, in `taken`."""
    for file, wanted in ((rest, ~chosen), (taken, chosen)):
        begin = 0
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, _SCHEMA) as writer:
            for batch in rows.data.to_batches():
                writer.write_batch(batch.filter(pa.array(wanted[begin : begin + len(batch)])))
                begin += len(batch)
    return Dataset.from_file(str(rest)), Dataset.from_file(str(taken))


def token_count(rows: Any) -> int:
    """Tokens of all rows of such a dataset."""
    return sum(len(chunk.flatten()) for chunk in _ids(rows))


def trained_token_count(rows: Any) -> int:
    """Tokens that count in the loss."""
    return sum(_labelled(chunk.flatten()) for chunk in _chunks(rows, "labels"))


def longest_row(rows: Any) -> int:
    """Tokens of the longest row of a dataset that `write_rows` has made; it has at least one row."""
    return max(int(pc.max(pc.list_value_length(chunk)).as_py()) for chunk in _ids(rows))


def longest_sequence(rows: Any) -> int:
    """Tokens of the longest sequence of such a dataset: of a row, or of one half of a pair."""
    return max(int(pc.max(chunk.flatten()).as_py()) for chunk in _chunks(rows, "lengths"))


def sequences_per_row(rows: Any) -> int:
    """How many sequences each row of such a dataset has: 1, or 2 of pairs."""
    return len(rows[0]["lengths"]) if "lengths" in rows.column_names else 1


def largest_id(rows: Any) -> int:
    """The largest token id of a dataset that `write_rows` has made; it has at least one row."""
    return max(int(pc.max(chunk.flatten()).as_py()) for chunk in _ids(rows))


def row_lengths(rows: Any) -> NDArray[np.int32]:
    """Tokens of each row of such a dataset."""
    return np.concatenate([pc.list_value_length(chunk).to_numpy(zero_copy_only=False) for chunk in _ids(rows)])


def rows_by_length(rows: Any) -> list[LengthBin]:
    """The rows of such a dataset by length: at most 20 bins of one width, from the shortest to the longest row."""
    lengths = row_lengths(rows)
    low, high = int(lengths.min()), int(lengths.max())
    width = -(-(high - low + 1) // _MOST_BINS)
    counts = np.bincount((lengths - low) // width)
    return [
        LengthBin(low=low + index * width, high=min(high, low + (index + 1) * width - 1), rows=int(count))
        for index, count in enumerate(counts)
    ]


def _labelled(labels: Any) -> int:
    return int(pc.sum(pc.not_equal(labels, IGNORED)).as_py() or 0)


def _ids(rows: Any) -> list[Any]:
    return _chunks(rows, "input_ids")


def _chunks(rows: Any, column: str) -> list[Any]:
    return [chunk for chunk in rows.data.column(column).chunks if len(chunk)]


def _labels(row: TokenRow) -> list[int]:
    labels = [token if trained else IGNORED for token, trained in zip(row.ids, row.trained, strict=True)]
    labels[0] = IGNORED
    return labels


def _groups(rows: Iterable[TokenRow | TokenPair], size: int) -> Iterator[list[TokenRow | TokenPair]]:
    group: list[TokenRow | TokenPair] = []
    for row in rows:
        group.append(row)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
