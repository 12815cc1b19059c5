"""Detects the schema of the rows from the first hundred of them.

The first row alone may be an exception. So the schema that fits most of these rows is chosen. Rows that it does not fit
are reported as problems.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from finetune_trainer.contract.manifest import SourceObject
from finetune_trainer.contract.recipe.dataset import DatasetSchema, DatasetSpec
from finetune_trainer.data.formats.open_records import StoredBytes, open_records
from finetune_trainer.data.formats.records import Row
from finetune_trainer.data.problems import Fault, FaultError, ProblemKind, keys_shown
from finetune_trainer.data.schemas.alpaca import HISTORY
from finetune_trainer.data.schemas.candidates import candidate_schemas, known_schemas
from finetune_trainer.data.schemas.row_meaning import columns_read, expected_rows, is_preference
from finetune_trainer.data.schemas.row_schemas import RowSchema, row_schemas
from finetune_trainer.storage.base import OpenStore

LOOKED_AT_ROWS = 100
_LIKELY: Final[Sequence[Mapping[str, Collection[str]]]] = (
    {
        "messages": (
            *("messages", "conversation", "conversations", "chat", "dialog", "dialogue", "turns", "data"),
            *("contents", "items"),
        )
    },
    {
        "prompt": ("prompt", "question", "query", "input", "instruction", "problem", "inputs"),
        "completion": ("completion", "response", "answer", "output", "target", "solution", "targets"),
    },
    {
        "system": ("system", "system_prompt", "system_message"),
        "instruction": ("question", "query", "prompt", "instruction"),
        "input": ("input", "context"),
        "output": ("response", "answer", "output", "completion"),
    },
    {"text": ("text", "content", "body", "document")},
)
_EXPECTED_PAIR: Final = (
    "a better and a worse answer, chosen and rejected, after a prompt, messages, conversations or an instruction"
)
_PAIR: Final[Mapping[str, Collection[str]]] = {
    "prompt": ("prompt", "question", "query", "input", "instruction"),
    "chosen": ("chosen", "chosen_response", "response_chosen", "preferred", "preferred_output", "accepted", "winner"),
    "rejected": (
        *("rejected", "rejected_response", "response_rejected", "dispreferred", "non_preferred_output", "loser"),
        "non_preferred",
    ),
}
_FIRST: Final = ("0", "1", "_A", "_a")
"""How the column of the first of several answers may end; the next one ends with the next character."""
_LISTS: Final = frozenset({"answers", "completions", "generations", "output", "outputs", "responses"})
"""Columns of several answers, in data sets that rank them."""
_OPTIONAL: Final = frozenset({"system", "input"})
"""Names of columns in other data sets, by the part of a row, for the remedy of an unknown schema."""


@dataclass(frozen=True, slots=True)
class DetectedSchema:
    """The result of detection.

    Attributes:
        row_schema: the schema of the first rows; None if no known schema fits any of them.
        first: the first row; None if there are no rows.
    """

    row_schema: RowSchema | None
    first: Row | None


def detect_schema(dataset: DatasetSpec, objects: Sequence[SourceObject], open_store: OpenStore) -> DetectedSchema:
    """Detects the schema of the rows.

    Args:
        dataset: how rows are read. If it names a schema, only that one is considered.
        objects: the objects of the data, in reading order.
        open_store: opens the store of an object.

    Raises:
        TrainerError: NOT_SUPPORTED, a package that reads the format is not installed; or the storage's reason.
    """
    candidates = candidate_schemas(dataset)
    fitting = [0] * len(candidates)
    first: Row | None = None
    for row in islice(_rows(dataset, objects, open_store), LOOKED_AT_ROWS):
        first = row if first is None else first
        for index, row_schema in enumerate(candidates):
            fitting[index] += row_schema.fits(row)
    if not any(fitting) and dataset.schema_ in (DatasetSchema.AUTO, DatasetSchema.PREFERENCE):
        return DetectedSchema(None, first)
    # A schema that the user names is used even if it fits no row. The pass then reports what every row lacks.
    best = candidates[fitting.index(max(fitting))]
    return DetectedSchema(best, first)


def unknown_schema(row: Row, dataset: DatasetSpec) -> Fault:
    """The fault of data without the columns of a known schema, or without those that `dataset.fields` names.

    Args:
        row: the first row.
        dataset: how rows are read.
    """
    possible = known_schemas(dataset, dataset.fields) or known_schemas(dataset, None)
    known = list(dict.fromkeys(row_schema.columns for row_schema in possible))
    empty = [name for name in row if row[name] is None and name in columns_read(dataset)]
    nothing = f", without a value: {', '.join(empty)}" if empty else ""
    return Fault(
        kind=ProblemKind.SCHEMA,
        found=f"the keys {keys_shown(row)}{nothing}" if row else "an empty object",
        expected=_EXPECTED_PAIR
        if dataset.schema_ is DatasetSchema.PREFERENCE
        else known[0]
        if len(known) == 1
        else f"one of: {'; '.join(known)}",
        remedy="fill the columns in, or name others in dataset.fields" if empty else _remedy(row, dataset),
    )


def _remedy(row: Row, dataset: DatasetSpec) -> str:
    """The remedy for a row with unknown columns."""
    if dataset.schema_ is DatasetSchema.PREFERENCE:
        return _pair_remedy(row)
    if dataset.fields is not None and dataset.fields.named:
        return "dataset.fields must name columns, and keys of turns, that are there"
    if "role" in row and "content" in row:
        return 'a turn stands where a row should: put the list of turns under a key, {"messages": […]}'
    if {"columns", "data"} <= row.keys() or (len(row) > 1 and all(isinstance(value, dict) for value in row.values())):
        return "if pandas wrote the table: DataFrame.to_json(path, orient='records', lines=True)"
    if any(is_preference(name) for name in row):
        return "this is preference data: write rows with the good answer alone, as messages or prompt and completion"
    if "input_ids" in row:
        return "token ids are not read: write the texts from which they were made"
    likely = [pairs for wanted in _LIKELY if (pairs := _mapped(wanted, row))]
    if not likely:
        return (
            "rename the columns, or map them with dataset.fields; else write each row as "
            '{"messages": [{"role": "user", "content": …}, {"role": "assistant", "content": …}]}'
        )
    # The most parts: a mapping to prompt and completion would drop a system message, an input and a history.
    pairs = max(likely, key=lambda pairs: len(pairs) + ("instruction" in pairs and HISTORY in row))
    if "messages" in pairs:
        return _turns_remedy(pairs["messages"], row)
    named = ", ".join(f"{part}: {name}" for part, name in pairs.items())
    return f"rename the columns, or map them, perhaps with dataset.fields: {{{named}}}"


def _pair_remedy(row: Row) -> str:
    """The remedy for a row in which no two answers are found."""
    if isinstance(row.get("label"), bool) or "kto_tag" in row:
        return "this is KTO data, one answer with a label; method: dpo needs a better and a worse answer in each row"
    columns = {part: next((key for key in row if key.lower() in names), None) for part, names in _PAIR.items()}
    if columns["chosen"] and columns["rejected"]:
        named = ", ".join(f"{part}: {name}" for part, name in columns.items() if name)
        return f"map the columns, perhaps with dataset.fields: {{{named}}}"
    if compared := _compared_answers(row):
        return (
            f"this seems to compare answers, in {compared}, and to say elsewhere which is better: write the better one "
            "of two to chosen and the worse one to rejected, beside their prompt"
        )
    if any(schema.fits(row) for schema in row_schemas(DatasetSchema.AUTO, None)):
        return "rows with one answer are trained with method: sft; or add the worse answer"
    return "rename the columns, or map them with dataset.fields: {chosen: …, rejected: …}"


def _compared_answers(row: Row) -> str:
    """The columns of answers that are numbered (response_1 and response_2), or listed; empty if there are none."""
    numbered = [
        (name, other)
        for name in row
        if name.endswith(_FIRST) and (other := name[:-1] + chr(ord(name[-1]) + 1)) in row and _is_said(row[name])
    ]
    if numbered:
        # Names of models and posts may be numbered too, and are shorter.
        longest = max(numbered, key=lambda pair: len(str(row[pair[0]])))
        return " and ".join(longest)
    listed = (name for name, value in row.items() if isinstance(value, list) and len(value) > 1)
    return next((name for name in listed if name.lower() in _LISTS), "")


def _is_said(value: object) -> bool:
    """Whether a value may be an answer: a text, or turns."""
    return isinstance(value, str) or (isinstance(value, list) and any(isinstance(turn, dict) for turn in value))


def _mapped(wanted: Mapping[str, Collection[str]], row: Row) -> dict[str, str]:
    """The row's column for each part that it has; empty if a part is missing that is not optional."""
    fitting = [key for key, value in row.items() if isinstance(value, list) == ("messages" in wanted)]
    columns = {part: next((key for key in fitting if key.lower() in names), None) for part, names in wanted.items()}
    if any(name is None for part, name in columns.items() if part not in _OPTIONAL):
        return {}
    return {part: name for part, name in columns.items() if name is not None}


def _turns_remedy(column: str, row: Row) -> str:
    """The remedy for an unknown column with a list that may be a list of turns."""
    turns = row[column]
    turn = turns[0] if isinstance(turns, list) and turns else None
    if not isinstance(turn, dict):
        return f'write each turn of {column} as an object, {{"role": …, "content": …}}'
    if {"role", "content"} <= turn.keys() or {"from", "value"} <= turn.keys():
        return f"rename the column, or map it with dataset.fields: {{messages: {column}}}"
    mapped = f"messages: {column}, " if column not in ("messages", "conversations") else ""
    return (
        f"the turns have the keys {keys_shown(turn)}: name those of the speaker and of the text, dataset.fields: "
        f'{{{mapped}role: …, content: …}}, or write {{"role": …, "content": …}}'
    )


def _rows(dataset: DatasetSpec, objects: Sequence[SourceObject], open_store: OpenStore) -> Iterator[Row]:
    """The rows that can be parsed. Other records are skipped here, and the pass over the data reports them."""
    expected = expected_rows(dataset)
    for source in objects:
        with open_store(source.location).open(source) as stream:
            try:
                stored = StoredBytes(stream, lambda _: None, hashed=False)
                for _, _, row in open_records(stored, source, dataset, expected, lambda _: None):
                    if isinstance(row, dict):
                        yield row
            except FaultError:
                continue
