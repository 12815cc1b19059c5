"""The scalar types that several sections of the spec share."""

from typing import Annotated

from pydantic import Field

from finetune_trainer.contract.rule import decimal, matching

DECIMAL_LENGTH = 24
"""Largest number of characters in a decimal."""

Decimal = Annotated[
    str,
    Field(max_length=DECIMAL_LENGTH),
    decimal('must be a non-negative decimal in quotes, for example "0.05" or "2e-4"'),
]
"""A non-negative real number as a string, because the Kubernetes API conventions forbid floats in a spec."""

_CONTROLS = "\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069"
"""Control characters except tab, LF and CR, the line and paragraph separators, and marks of writing direction."""

PLAIN = matching(
    f"[{_CONTROLS}\u0009\u000a\u000d]",
    "must be one line without control characters and marks of writing direction: remove them",
    negated=True,
)
"""The rule of text on one line. In terminals, logs and pages the refused characters can hide or forge text."""

PLAIN_LINES = matching(
    f"[{_CONTROLS}]", "must not hold control characters or marks of writing direction: remove them", negated=True
)
"""The rule of text that may have several lines and tabs."""

SECRET_KEY = matching("^[-._a-zA-Z0-9]+$", "must be a Secret's key: letters, digits, '-', '_' and '.'")

DNS_LABEL = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"

DNS_SUBDOMAIN = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"

QUALIFIED_NAME = "^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
"""The key of a label or an annotation."""

DnsLabel = Annotated[
    str,
    Field(max_length=63),
    matching(
        DNS_LABEL,
        "must consist of lower-case letters, digits and '-', and start and end with a letter or digit",
    ),
]

ObjectName = Annotated[
    str,
    Field(max_length=253),
    matching(
        DNS_SUBDOMAIN,
        "must be the name of an object in this namespace: lower-case letters, digits, '-' and '.'",
    ),
]
