"""Tables that were written as one object with a list for each column, in the place of an object for each row."""

from collections.abc import Sequence

from finetune_trainer.data.formats.records import Row
from finetune_trainer.data.problems import Fault, ProblemKind, keys_shown


def column_wise_fault(row: Row, faults: Sequence[Fault]) -> Sequence[Fault]:
    """The one fault of a row that is a table, in the place of what is wrong with each of its columns.

    Args:
        row: a row with faults.
        faults: its faults.
    """
    columns = [value for value in row.values() if isinstance(value, list)]
    lengths = {len(column) for column in columns}
    # Lists of one length are columns. Turns are objects, so a list of them is a conversation and no column; a list of
    # lists of turns is a column of conversations.
    table = (
        len(columns) == len(row)
        and len(lengths) == 1
        and 0 not in lengths
        and not any(isinstance(item, dict) for column in columns for item in column)
        and (len(columns) > 1 or all(isinstance(item, list) and item for item in columns[0]))
    )
    if not table:
        return faults
    [rows] = lengths
    return [
        Fault(
            kind=ProblemKind.SCHEMA,
            path=next(iter(row)),
            found=f"a list of {rows} under each of the keys {keys_shown(row)}",
            expected="an object for each row",
            remedy="the table is written column by column: write it with DataFrame.to_json(path, orient='records', "
            "lines=True), or Dataset.to_json(path)",
        )
    ]
