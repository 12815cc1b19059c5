"""The columns that a file declares (Parquet, CSV, TSV), and the faults that follow from the declaration.

A column of the wrong type is one problem, reported before any row is read. Otherwise it would be one problem a row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from finetune_trainer.data.problems import Fault, ProblemKind, keys_shown


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnType:
    """The declared type of a column.

    Attributes:
        name: the type's name in the file format.
        text: whether the values are texts.
        empty: whether the type allows only nulls.
        turns: whether the values are lists of objects.
        keys: the keys of these objects and their types; None when the file does not declare them.
    """

    name: str
    text: bool = False
    empty: bool = False
    turns: bool = False
    keys: Mapping[str, "ColumnType"] | None = field(default=None)


Columns = Mapping[str, ColumnType]


def texts_misdeclared(columns: Columns, needed: Sequence[str], optional: Sequence[str] = ()) -> list[Fault]:
    """The faults of columns that should hold text.

    Args:
        columns: the columns that the file declares.
        needed: names of required columns.
        optional: names of columns that may be missing or hold only nulls.
    """
    given = [name for name in optional if name in columns and not columns[name].empty]
    return [
        fault
        for name in (*needed, *given)
        if (fault := _absent(columns, name, name) if name not in columns else _no_text(columns[name], name))
    ]


def turns_misdeclared(columns: Columns, name: str, role: str, content: str) -> list[Fault]:
    """The faults of a column that should hold lists of turns.

    Args:
        columns: the columns that the file declares.
        name: the column's name.
        role: the key of a turn's role.
        content: the key of a turn's text.
    """
    if name not in columns:
        return [_absent(columns, name, name)]
    column = columns[name]
    if not column.turns:
        remedy = "write lists of such objects"
        if column.text:
            remedy = "the turns seem to be JSON inside a text: parse each value with json.loads before writing the file"
        return [
            Fault(
                kind=ProblemKind.TYPE,
                path=name,
                found=_shown(column),
                expected=f"a column of lists of objects with {role} and {content}",
                remedy=remedy,
            )
        ]
    if column.keys is None:
        return []
    faults = []
    for key in (role, content):
        path, inner = f"{name}[].{key}", column.keys.get(key)
        if inner is None:
            faults.append(_absent(column.keys, key, path))
        # Content may be a list of parts. Their types are checked row by row.
        elif not (key == content and inner.turns) and (fault := _no_text(inner, path)):
            faults.append(fault)
    return faults


def _no_text(column: ColumnType, path: str) -> Fault | None:
    if column.text:
        return None
    return Fault(
        kind=ProblemKind.TYPE,
        path=path,
        found=_shown(column),
        expected="a column of text",
        remedy="write it as text, or name another column in dataset.fields",
    )


def _absent(columns: Columns, name: str, path: str) -> Fault:
    return Fault(
        kind=ProblemKind.SCHEMA,
        path=path,
        found=f"the columns {keys_shown(dict(columns))}" if columns else "no columns",
        expected=f"the column {name}",
        remedy="rename the column, or name it in dataset.fields",
    )


def _shown(column: ColumnType) -> str:
    return "a column without values" if column.empty else f"a column of {column.name}"
