"""Flags of the operator's process: every setting but those that the admission policies read."""

import re
from pathlib import Path

import pytest

from finetune_operator.config import read_config
from finetune_operator.flags import READ_BY_POLICIES, variables, with_flags

ROOT = Path(__file__).parents[3]
REQUIRED = {"FINETUNE_OPERATOR_IMAGE": "op:1", "FINETUNE_TRAINER_IMAGE": "tr:1"}


def test_a_flag_wins_over_its_variable() -> None:
    environment = {**REQUIRED, "FINETUNE_WORKERS": "4", "FINETUNE_LOG_LEVEL": "DEBUG"}
    config = read_config(
        with_flags(environment, ["--workers=64", "--http-port", "9090", "--lease-namespace=system"]),
        fallback_identity="me",
    )
    assert (config.workers, config.http_port, config.lease_namespace) == (64, 9090, "system")
    assert config.log_level == "DEBUG"


def test_without_flags_the_environment_stays_as_it_is() -> None:
    assert with_flags(REQUIRED, []) == REQUIRED


@pytest.mark.parametrize("argument", ["--worker=1", "--no-such=1", "workers", "--trainer-image=evil"])
def test_an_unknown_argument_ends_the_process(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        with_flags(REQUIRED, [argument])
    assert ended.value.code == 2
    assert argument in capsys.readouterr().err


def test_every_setting_has_a_flag_but_those_that_the_policies_read(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        with_flags({}, ["--help"])
    shown = set(re.findall(r"FINETUNE_[A-Z_]+", capsys.readouterr().out))
    assert shown == set(variables()) - READ_BY_POLICIES
    policy = (ROOT / "manifests/rbac/admission-policy.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"'(FINETUNE_[A-Z_]+)'", policy)) == READ_BY_POLICIES
