"""The schemas that the rows of a data set may have."""

from finetune_trainer.contract.recipe.dataset import DatasetSchema, DatasetSpec, Fields
from finetune_trainer.data.schemas.preference_forms import preference_schemas
from finetune_trainer.data.schemas.row_schemas import RowSchema, row_schemas


def candidate_schemas(dataset: DatasetSpec) -> list[RowSchema]:
    """The schemas that rows may have, in the order in which they are tried."""
    if dataset.schema_ is DatasetSchema.PREFERENCE:
        return [*preference_schemas(dataset.fields, frozenset(dataset.ignored_columns or ()))]
    return row_schemas(dataset.schema_, dataset.fields)


def known_schemas(dataset: DatasetSpec, fields: Fields | None) -> list[RowSchema]:
    """The schemas that rows of the data set's method may have, whichever the recipe names.

    Args:
        dataset: the recipe's section.
        fields: the names of columns; None for the usual ones.
    """
    if dataset.schema_ is DatasetSchema.PREFERENCE:
        return [*preference_schemas(fields)]
    return row_schemas(DatasetSchema.AUTO, fields)
