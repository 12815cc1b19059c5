"""Every setting of a job as it will run, and where each comes from."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from finetune_operator.api.merge import leaves, origins
from finetune_operator.api.profile import Profile
from finetune_operator.api.spec import FineTuneJobSpec
from finetune_operator.api.status import ProfileStatus
from finetune_operator.cli.views.table import table
from finetune_trainer.contract.text import printable

JOB = "job"
DEFAULT = "default"


def spec_lines(
    own: Mapping[str, Any], spec: FineTuneJobSpec, profiles: Sequence[Profile], record: ProfileStatus | None
) -> list[str]:
    """A table of all settings.

    Args:
        own: the job's own spec.
        spec: the spec with what the profiles supply.
        profiles: the profiles; each wins over the one before.
        record: the record of them, with the ceilings.
    """
    layers = [*(profile.values() for profile in profiles), own]
    labels = [*map(str, profiles), JOB]
    # Only what a profile can supply is merged; the rest is the job's or the default.
    found = {path: labels[number] for path, number in origins(layers).items()}
    ceilings = {} if record is None else {item.path: item for item in record.ceilings}
    rows = [["SETTING", "VALUE", "FROM"]]
    for keys, value in leaves(spec.to_dict()):
        path = ".".join(keys)
        source = found.get(path, DEFAULT)
        ceiling = ceilings.get(path.removesuffix("Limit")) or ceilings.get(path)
        if source == DEFAULT and ceiling is not None and str(value) == ceiling.value:
            source = f"ceiling of {ceiling.source}"
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        rows.append([printable(path), printable(text), source])
    return table(rows)
