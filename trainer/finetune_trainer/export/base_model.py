"""The base model's name for a server and for people, and the Python that loads it with its adapter."""

import json
import re
import shlex

from finetune_trainer.contract.failure import TrainerError
from finetune_trainer.contract.text import printable
from finetune_trainer.contract.uri import Scheme, Uri, parse_uri
from finetune_trainer.storage.base import OpenStore

_FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)
_LICENCE = re.compile(r"^license:[ \t]*([\"']?)([A-Za-z0-9][A-Za-z0-9.+-]{0,63})\1[ \t]*$", re.MULTILINE)


def model_id(uri: Uri) -> str:
    """The base model as a server should name it: `org/name` for a Hub model, a path for a local one, else the URI."""
    match uri.scheme:
        case Scheme.HF:
            return uri.authority
        case Scheme.FILE:
            return uri.path
        case Scheme.S3 | Scheme.PVC | Scheme.HTTPS:
            return str(uri)


def base_licence(uri: Uri, open_store: OpenStore) -> str | None:
    """The licence that the base model's own card names (`license:` in the front matter of its README.md), if any.

    A card that cannot be read does not fail a run.
    """
    try:
        content = open_store(uri).read(uri.child("README.md"))
    except TrainerError:
        return None
    return licence_in(content.decode("utf-8", "replace")) if content is not None else None


def licence_in(card: str) -> str | None:
    """The `license:` in a model card's front matter, for example `apache-2.0`."""
    front = _FRONT_MATTER.match(card.removeprefix("\ufeff").replace("\r\n", "\n"))
    match = _LICENCE.search(front.group(1)) if front else None
    return match.group(2) if match else None


def loading_code(base: str, adapter: str, revision: str | None = None, *, remote_code: bool = False) -> str:
    """Python that loads a base model with its adapter; without a line break at its end.

    Args:
        base: the model as `model_id` names it.
        adapter: the adapter's folder on the reader's machine.
        revision: the commit of a Hub model.
        remote_code: whether the model needs the code of its own folder.
    """
    first, name = _fetching(base)
    pinned = f", revision={json.dumps(revision)}" if revision else ""
    trusting = ", trust_remote_code=True" if remote_code else ""
    return (
        f"{first}"
        "from peft import PeftModel\n"
        "from transformers import AutoModelForCausalLM\n\n"
        f"model = AutoModelForCausalLM.from_pretrained({_literal(name)}{pinned}{trusting})\n"
        f"model = PeftModel.from_pretrained(model, {_literal(adapter)})"
    )


def _fetching(base: str) -> tuple[str, str]:
    """A comment that says how to fetch the base model, and its name after that."""
    if base.startswith("s3://"):
        folder = base.rstrip("/").rsplit("/", 1)[-1]
        source, target = shlex.quote(f"{base.rstrip('/')}/"), shlex.quote(f"{folder}/")
        return f"# first: aws s3 cp --recursive {printable(source)} {printable(target)}\n", folder
    if base.startswith("pvc://"):
        place = parse_uri(base)
        return (
            f"# the base model is on the claim {place.authority}: mount it, at /mnt for example\n",
            f"/mnt/{place.path.lstrip('/')}",
        )
    return "", base


def _literal(text: str) -> str:
    """The text as a Python literal. A control character is escaped, and an escape is part of a literal."""
    return printable(json.dumps(text, ensure_ascii=False))
