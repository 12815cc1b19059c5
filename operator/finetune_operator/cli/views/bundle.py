"""What a support bundle holds of an object: everything that helps, and nothing that is secret.

Values of environment variables, annotations of tools, inline certificates and everything that looks like a key is left
out. A bundle is read by strangers.
"""

import re
from collections.abc import Mapping
from typing import Any

_LEFT_OUT = "(left out)"
_ANNOTATIONS = ("finetune.dev/", "kueue.x-k8s.io/", "batch.kubernetes.io/")
"""Beginnings of annotations that are kept. Others may have the whole object in them."""
_SECRET_FIELD = re.compile(r"(?i)(token|password|passwd|secret|credential|apikey|api_key|privatekey|cabundle)$")
_PATTERNS = (
    re.compile(r"\bhf_[A-Za-z0-9]{20,}"),
    re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    re.compile(r"\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]+"),
    re.compile(r"(?i)((?:X-Amz-(?:Signature|Credential|Security-Token)|sig|signature|token)=)[^&\s\"']+"),
    re.compile(r"(?i)((?:aws_)?secret(?:_access)?_?key['\"]?\s*[=:]\s*['\"]?)[^\s'\",}]+"),
    re.compile(r"(?i)(authorization:\s*(?:bearer|basic)\s+)\S+"),
    re.compile(r"(https?://[^\s?\"'<>]+\?)[^\s\"'<>]+"),  # a query may hold a signature
    re.compile(r"(://)[^/\s:@]+:[^/\s@]+(?=@)"),
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
)


def without_secrets(value: Any, name: str = "") -> Any:
    """A value of an object without what may be secret.

    Args:
        value: any JSON value.
        name: the field that holds it.
    """
    if isinstance(value, Mapping):
        if name == "annotations":
            value = {key: item for key, item in value.items() if key.startswith(_ANNOTATIONS)}
        if name == "env[]":
            kept = {key: item for key, item in value.items() if key != "value"}
            return without_secrets(kept | ({"value": _LEFT_OUT} if "value" in value else {}))
        return {
            key: without_secrets(item, key)
            for key, item in value.items()
            if key not in ("managedFields", "data", "stringData", "binaryData")
        }
    if isinstance(value, list):
        return [without_secrets(item, f"{name}[]") for item in value]
    if isinstance(value, str):
        return _LEFT_OUT if _SECRET_FIELD.search(name) else text_without_secrets(value)
    return value


def text_without_secrets(text: str) -> str:
    """A text without what looks like a key, a token, a signature or a password in a URL."""
    for pattern in _PATTERNS:
        text = pattern.sub(lambda match: (match[1] if match.re.groups else "") + _LEFT_OUT, text)
    return text
