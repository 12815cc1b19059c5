"""How an adapter is served: commands and manifests for servers that load PEFT's folder.

The names of flags and fields are those of vLLM 0.33, KServe's LLMInferenceService (v1alpha2), AIBrix' ModelAdapter
(v1alpha1) and llama.cpp's converters.
"""

import re
import shlex
from collections.abc import Callable
from enum import StrEnum
from typing import Any

import yaml

from finetune_operator.cli.views.job import JobView
from finetune_trainer.contract.uri import Scheme, parse_uri

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes for --max-lora-rank."""


class Server(StrEnum):
    """Servers for which there is a recipe."""

    VLLM = "vllm"
    KSERVE = "kserve"
    AIBRIX = "aibrix"
    LLAMACPP = "llamacpp"


def serving(job: JobView, server: Server) -> str:
    """Commands or YAML that serve the job's adapter.

    Args:
        job: a job that has succeeded.
        server: the server.
    """
    return _RECIPES[server](job)


def max_rank(rank: str) -> int:
    """The smallest --max-lora-rank of vLLM that takes an adapter of this rank."""
    number = int(rank) if rank.isdecimal() else 0
    return next((known for known in RANKS if known >= number), RANKS[-1])


def _vllm(job: JobView) -> str:
    first, base, folder = _fetched(job)
    command = [
        "vllm", "serve", base, "--tokenizer", folder, "--enable-lora", "--max-lora-rank",
        str(max_rank(job.output("rank"))), "--lora-modules", f"{job.name}={folder}",
    ]  # fmt: skip
    request = f'{{"model": "{job.name}", "messages": [{{"role": "user", "content": "Hello"}}]}}'
    ask = ["curl", "http://localhost:8000/v1/chat/completions", "-H", "Content-Type: application/json", "-d", request]
    return "\n".join([*first, shlex.join(command), "# then, elsewhere:", f"# {shlex.join(ask)}"])


def _llamacpp(job: JobView) -> str:
    first, base, folder = _fetched(job)
    local = base
    if not base.startswith(("/", ".")) and _scheme(job.spec("model.uri")) is Scheme.HF:
        local = base.rpartition("/")[2]
        first = [*first, shlex.join(["hf", "download", base, "--local-dir", local])]
    gguf, lora = f"{local.rstrip('/').rpartition('/')[2]}.gguf", f"{job.name}.gguf"
    return "\n".join(
        [
            "# in a checkout of llama.cpp, with its Python packages installed",
            *first,
            shlex.join(["python", "convert_hf_to_gguf.py", local, "--outfile", gguf]),
            shlex.join(["python", "convert_lora_to_gguf.py", folder, "--base", local, "--outfile", lora]),
            shlex.join(["llama-server", "-m", gguf, "--lora", lora]),
        ]
    )


def _kserve(job: JobView) -> str:
    rank = max_rank(job.output("rank"))
    manifest = {
        "apiVersion": "serving.kserve.io/v1alpha2",
        "kind": "LLMInferenceService",
        "metadata": {"name": job.name},
        "spec": {
            "model": {
                "uri": job.spec("model.uri"),
                "name": job.output("baseModel"),
                "lora": {"maxRank": rank, "adapters": [{"name": job.name, "uri": job.output("uri")}]},
            },
            "replicas": 1,
            "router": {"gateway": {}, "route": {}, "scheduler": {}},
            "template": {"containers": [{"name": "main", "resources": {"limits": {"nvidia.com/gpu": "1"}}}]},
        },
    }
    return "# KServe reads s3:// with the keys of its own configuration: spec.template.serviceAccountName\n" + _yaml(
        manifest
    )


def _aibrix(job: JobView) -> str:
    base = re.sub(r"[^a-z0-9-]+", "-", job.output("baseModel").rstrip("/").rpartition("/")[2].lower()).strip("-")
    labels = {"model.aibrix.ai/name": base, "adapter.model.aibrix.ai/enabled": "true"}
    manifest = {
        "apiVersion": "model.aibrix.ai/v1alpha1",
        "kind": "ModelAdapter",
        "metadata": {
            "name": job.name,
            "labels": {"model.aibrix.ai/name": job.name, "model.aibrix.ai/port": "8000"},
        },
        "spec": {
            "baseModel": base,
            "podSelector": {"matchLabels": labels},
            "artifactURL": f"{job.output('uri')}/",
            "credentialsSecretRef": {"name": "s3-credentials"},
        },
    }
    return (
        f"# The base model's pods have the label model.aibrix.ai/name: {base}, run AIBrix' runtime beside vLLM, and\n"
        f"# vLLM has --enable-lora --max-lora-rank {max_rank(job.output('rank'))}. The Secret has the keys\n"
        "# aws_access_key_id and aws_secret_access_key.\n"
    ) + _yaml(manifest)


def _fetched(job: JobView) -> tuple[list[str], str, str]:
    """Commands that fetch adapter and base model, and what they are called after that."""
    folder = f"./{job.name}"
    first = [f"kubectl finetune result {job.name} --to {job.name}"]
    base = job.output("baseModel")
    match _scheme(base):
        case Scheme.S3:
            local = "./" + base.rstrip("/").rpartition("/")[2]
            first.append(shlex.join(["aws", "s3", "cp", "--recursive", base, local]))
            base = local
        case Scheme.PVC:
            place = parse_uri(base)
            first.append(f"# the base model is on the claim {place.authority}: mount it at /mnt")
            base = f"/mnt/{place.path.lstrip('/')}"
    return first, base, folder


def _scheme(uri: str) -> Scheme | None:
    try:
        return parse_uri(uri).scheme
    except ValueError:
        return None


def _yaml(manifest: dict[str, Any]) -> str:
    return yaml.safe_dump(manifest, sort_keys=False).rstrip("\n")


_RECIPES: dict[Server, Callable[[JobView], str]] = {
    Server.VLLM: _vllm,
    Server.KSERVE: _kserve,
    Server.AIBRIX: _aibrix,
    Server.LLAMACPP: _llamacpp,
}
