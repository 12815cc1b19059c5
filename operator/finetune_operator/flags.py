"""Command-line flags: each is a setting of the operator, and wins over its environment variable."""

import argparse
from collections.abc import Mapping, Sequence

from pydantic import AliasChoices

from finetune_operator.config import Config

_PREFIX = "FINETUNE_"
READ_BY_POLICIES = frozenset({"FINETUNE_OPERATOR_IMAGE", "FINETUNE_TRAINER_IMAGE", "FINETUNE_SERVICE_ACCOUNTS"})
"""Variables that the admission policies read in the Deployment. As flags the policies would not see them."""


def variables() -> list[str]:
    """Returns the environment variables of the operator's settings."""
    found = []
    for name, field in Config.model_fields.items():
        alias = field.validation_alias or field.alias or name
        found.append(str(alias.choices[0] if isinstance(alias, AliasChoices) else alias))
    return [name for name in found if name.startswith(_PREFIX)]


def with_flags(environment: Mapping[str, str], arguments: Sequence[str]) -> dict[str, str]:
    """Returns the environment with the settings of the command line.

    Raises:
        SystemExit: an argument is not a flag of the operator (code 2), or is `--help` (code 0). It was printed why.
    """
    parser = argparse.ArgumentParser(
        prog="finetune_operator",
        description="Runs FineTuneJobs. Each flag is the setting of the same name and wins over its variable.",
        allow_abbrev=False,
    )
    for variable in variables():
        if variable not in READ_BY_POLICIES:
            flag = "--" + variable.removeprefix(_PREFIX).lower().replace("_", "-")
            parser.add_argument(flag, dest=variable, metavar="VALUE", help=variable, default=None)
    given = {name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not None}
    return {**environment, **given}
