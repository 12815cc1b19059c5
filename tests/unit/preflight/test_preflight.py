"""Preflight against a real S3 server: every verdict, nothing left behind."""

import json
import os
import socket
import struct
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

import s3server
from finetune_trainer import preflight
from finetune_trainer.contract.failure import ExitCode, FailureReason
from finetune_trainer.contract.layout import STORAGE_SECRET_ENV, TERMINATION_ENV
from finetune_trainer.contract.manifest import Manifest
from finetune_trainer.contract.preflight_report import PreflightReport, Verdict
from finetune_trainer.contract.termination import MAX_BYTES, Outcome, Termination
from localcluster.records import Keys
from s3server import S3Server

from .tokenizers_made import tokenizer_json

pytestmark = pytest.mark.extras

ROW = b'{"prompt": "2 + 2?", "completion": " 4"}\n'


def weights(parameters: int, name: str = "w", dtype: str = "F32") -> bytes:
    """A safetensors file of one tensor."""
    tensor = {"dtype": dtype, "shape": [parameters], "data_offsets": [0, 4 * parameters]}
    header = json.dumps({"__metadata__": {"format": "pt"}, name: tensor}).encode()
    return struct.pack("<Q", len(header)) + header + b"\0" * 4 * parameters


MODEL = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": tokenizer_json(),
    "tokenizer_config.json": b'{"bos_token": "<s>", "eos_token": "</s>"}',
    "model.safetensors": weights(10),
    "README.md": b"",
}


class Bench:
    """A bucket's prefix with data and model, and the recipe that names them."""

    def __init__(self, s3: S3Server, folder: Path, name: str) -> None:
        self.s3, self.folder, self.name = s3, folder, name
        self.keys = s3.admin
        self.sections: dict[str, Any] = {}
        self.put("train.jsonl", ROW * 3)
        for file, content in MODEL.items():
            self.put(f"model/{file}", content)

    def put(self, key: str, content: bytes) -> None:
        self.s3.put(f"{self.name}/{key}", content)

    def drop(self, key: str) -> None:
        self.s3.client().delete_object(Bucket=s3server.BUCKET, Key=f"{self.name}/{key}")

    @property
    def base(self) -> str:
        return f"s3://{s3server.BUCKET}/{self.name}"

    def run(self, *arguments: str) -> tuple[int, Termination]:
        recipe = {
            "job": {"name": "tiny"},
            "model": {"uri": f"{self.base}/model"},
            "dataset": {"uri": f"{self.base}/train.jsonl"},
            "output": {"uri": f"{self.base}/out"},
            "storage": {"endpoint": self.s3.endpoint},
        }
        for section, fields in self.sections.items():
            recipe[section] = {**recipe.get(section, {}), **fields}
        file = self.folder / "recipe.json"
        file.write_text(json.dumps(recipe))
        mounted = s3server.mount(self.folder / "keys", self.keys)
        environment = {
            STORAGE_SECRET_ENV: str(mounted.directory),
            TERMINATION_ENV: str(self.folder / "termination"),
        }
        code = preflight.main(["--recipe", str(file), *arguments], environment)
        text = (self.folder / "termination").read_bytes()
        assert len(text) <= MAX_BYTES
        ended = Termination.read(text.decode())
        assert ended is not None
        return code, ended

    def outputs(self) -> list[str]:
        return self.s3.keys(f"{self.name}/out")


@pytest.fixture
def bench(s3: S3Server, tmp_path: Path, request: pytest.FixtureRequest) -> Bench:
    return Bench(s3, tmp_path, request.node.name.replace("[", "-").replace("]", ""))


def report_of(bench: Bench, capsys: pytest.CaptureFixture[str]) -> tuple[int, PreflightReport, Termination]:
    code, ended = bench.run("--output", "json")
    report = PreflightReport.model_validate_json(capsys.readouterr().out)
    assert report.passed == (code == 0)
    return code, report, ended


def verdicts(report: PreflightReport) -> dict[str, Verdict]:
    return {item.name: item.verdict for item in report.checks}


def test_all_is_well(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    code, report, ended = report_of(bench, capsys)
    assert code == 0
    names = ["recipe", "storage.read", "model", "output", "dataset", "tokens", "storage.write"]
    assert verdicts(report) == {**dict.fromkeys(names, Verdict.PASSED), "memory": Verdict.SKIPPED}
    summary = report.summary
    assert (summary.rows, summary.schema_, summary.model_parameters) == (3, "promptCompletion", 10)
    assert summary.duplicates == 2
    assert summary.bytes == 3 * len(ROW)
    assert ended.outcome is Outcome.SUCCEEDED
    assert ended.fingerprint == report.fingerprint is not None
    assert bench.outputs() == []


@pytest.mark.parametrize(
    ("lora", "said"),
    [
        ({}, None),
        ({"variant": "rslora", "rank": 512}, None),
        ({"variant": "dora"}, "lora.variant: dora"),
        ({"bias": "all", "modulesToSave": ["lm_head"]}, "lora.bias: all, lora.modulesToSave: serve"),
        ({"rank": 1024}, "lora.rank: 1024 is above 512"),
    ],
)
def test_an_adapter_that_vllm_does_not_load_is_said_to_be_one(
    bench: Bench, capsys: pytest.CaptureFixture[str], lora: dict[str, Any], said: str | None
) -> None:
    bench.sections = {"lora": lora}
    code, report, _ = report_of(bench, capsys)
    lines = [item.message for item in report.checks if item.name == "serving"]
    assert code == 0
    assert [said in line for line in lines if said] == [True] * len(lines)
    assert bool(lines) is (said is not None)


def put_llama(bench: Bench) -> None:
    """A model with Llama's sizes in its config and the weights of one layer."""
    sizes = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4, "vocab_size": 352}
    bench.put("model/config.json", json.dumps({"model_type": "llama", **sizes, "intermediate_size": 128}).encode())


@pytest.mark.parametrize(("gib", "verdict"), [(4, Verdict.PASSED), (0.5, Verdict.FAILED), (None, Verdict.PASSED)])
def test_the_memory_of_the_gpu(
    bench: Bench, capsys: pytest.CaptureFixture[str], gib: float | None, verdict: Verdict
) -> None:
    put_llama(bench)
    bench.sections["machine"] = {"gpus": 1, **({} if gib is None else {"gpuMemoryBytes": int(gib * (1 << 30))})}
    code, report, ended = report_of(bench, capsys)
    assert code == (ExitCode.GPU_TOO_SMALL if verdict is Verdict.FAILED else 0)
    assert verdicts(report)["memory"] is verdict
    assert ended.preflight is not None
    assert ended.preflight.memory_estimate_bytes == sum(report.memory.values()) > report.memory["reserve"] > 0
    message = next(item.message for item in report.checks if item.name == "memory")
    for part in ("model", "adapter", "gradients", "optimizer", "activations", "workspace", "reserve"):
        assert f"{part} " in message
    if verdict is Verdict.FAILED:
        assert ended.reason is FailureReason.GPU_TOO_SMALL
        assert "the job asks for 0.5 GiB" in ended.message


def test_a_broken_line_far_down(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.put("train.jsonl", ROW * 7311 + b'{"prompt": "a", }\n' + ROW * 100)
    code, report, ended = report_of(bench, capsys)
    assert code == ExitCode.DATASET_INVALID
    assert report.problem_count == 1
    assert (report.problems[0].file, report.problems[0].line) == ("train.jsonl", 7312)
    assert report.problems[0].byte_offset == 7311 * len(ROW)
    assert ended.outcome is Outcome.FAILED
    assert ended.reason is FailureReason.DATASET_INVALID
    assert "train.jsonl:7312: found a comma before '}'" in ended.message
    assert verdicts(report)["storage.write"] is Verdict.SKIPPED
    assert bench.outputs() == []


def test_many_problems_still_fit_the_termination_message(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.put("train.jsonl", ('{"prompt": "' + "ä" * 500 + '", "completion": "' + '"}\n').encode() * 5000)
    code, report, ended = report_of(bench, capsys)
    assert code == ExitCode.DATASET_INVALID
    assert (report.problem_count, len(report.problems)) == (5000, 20)
    assert "5,000 problems in the data (5,000 x empty text)" in ended.message
    assert "train.jsonl:1 completion" in ended.message
    assert ended.preflight is not None
    assert ended.preflight.problems == 5000


def test_text_for_a_terminal(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.put("train.jsonl", ROW + b"{}\n" * 30)
    code, _ = bench.run()
    shown = capsys.readouterr().out
    assert code == ExitCode.DATASET_INVALID
    assert "FAILED  dataset" in shown
    assert "  train.jsonl:2 prompt: found an empty object, expected the key prompt" in shown
    assert "… and 40 more" in shown
    assert "DatasetInvalid: Correct the named lines" in shown


def prompts(*lengths: int) -> bytes:
    """Rows of so many tokens, with BOS and EOS: the model's tokenizer makes one of each byte."""
    rows = [{"prompt": "p", "completion": "c" * (length - 3)} for length in lengths]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def test_tokens_are_counted(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.put("train.jsonl", prompts(*[20] * 60, *[100] * 36, *[200] * 4))
    bench.sections = {"dataset": {"maxLength": 128}, "training": {"batchSize": 8, "epochs": 2}}
    code, report, ended = report_of(bench, capsys)
    assert code == 0
    found = report.tokens
    assert found is not None
    assert (found.rows, found.sampled_rows, found.truncated, found.dropped) == (100, 100, 4, 0)
    assert (found.p50, found.p95, found.p99, found.longest) == (20, 100, 200, 200)
    assert found.tokens == 60 * 20 + 36 * 100 + 4 * 128
    assert found.trained_tokens == found.tokens - 2 * 100, "without BOS and prompt"
    assert found.steps == 2 * 13
    assert [(item.up_to, item.rows) for item in found.histogram] == [(32, 60), (64, 0), (128, 36), (256, 4)]
    summary = ended.preflight
    assert summary is not None
    assert (summary.tokens, summary.steps, summary.truncated, summary.dropped) == (found.tokens, 26, 4, 0)
    assert (summary.tokens_p50, summary.tokens_p95, summary.tokens_max) == (20, 100, 200)
    assert summary.sampled_rows is None


def test_tokens_on_a_terminal(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.put("train.jsonl", prompts(*[20] * 60, *[200] * 3))
    bench.sections = {"dataset": {"maxLength": 128}}
    assert bench.run()[0] == 0
    shown = capsys.readouterr().out.splitlines()
    (line,) = [line for line in shown if "tokens an epoch" in line]
    assert "3 rows (4.8 %) longer than dataset.maxLength (128), to be cut" in line
    start = next(index for index, line in enumerate(shown) if line.endswith("tokens to  rows"))
    bars = [line.split() for line in shown[start + 1 : start + 5]]
    assert bars == [["32", "60", "#" * 40], ["64", "0"], ["128", "0"], ["256", "3", "##", "(cut)"]]


@pytest.mark.parametrize(
    ("rows", "sections", "code", "words"),
    [
        (
            json.dumps({"instruction": "i", "output": "o"}).encode(),
            {},
            ExitCode.MODEL_INVALID,
            "the model has no chat template",
        ),
        (
            json.dumps({"prompt": "p" * 99, "completion": "c"}).encode(),
            {"dataset": {"maxLength": 64}},
            ExitCode.DATASET_INVALID,
            "no row has a token to train: all 1 would be dropped",
        ),
        (
            json.dumps({"text": "t"}).encode(),
            {"dataset": {"loss": "assistant"}},
            ExitCode.INVALID_SPEC,
            "spec.dataset.loss: assistant: the rows are running text",
        ),
    ],
)
def test_rows_that_cannot_be_trained(
    bench: Bench,
    capsys: pytest.CaptureFixture[str],
    rows: bytes,
    sections: dict[str, Any],
    code: ExitCode,
    words: str,
) -> None:
    bench.put("train.jsonl", rows)
    bench.sections = sections
    found, report, ended = report_of(bench, capsys)
    assert found == code, ended.message
    assert words in ended.message
    assert verdicts(report)["storage.write"] is Verdict.SKIPPED


@pytest.mark.parametrize(
    ("sizes", "code", "words"),
    [
        (
            {"max_position_embeddings": 30},
            ExitCode.INVALID_SPEC,
            "row has 40 tokens, and this model has 30",
        ),
        ({"vocab_size": 100}, ExitCode.MODEL_INVALID, "the model has embeddings for 100 ids only"),
        ({"text_config": {"vocab_size": 100}}, ExitCode.MODEL_INVALID, "the model has embeddings for 100 ids only"),
        ({"max_position_embeddings": 40, "vocab_size": 1000}, 0, ""),
    ],
)
def test_rows_that_do_not_fit_the_model(
    bench: Bench, capsys: pytest.CaptureFixture[str], sizes: dict[str, Any], code: int, words: str
) -> None:
    bench.put("train.jsonl", prompts(20, 40, 20))
    bench.put("model/config.json", json.dumps({"model_type": "llama", **sizes}).encode())

    found, _, ended = report_of(bench, capsys)

    assert found == code, ended.message
    assert words in ended.message


def test_a_template_that_refuses_a_late_row(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    template = "{% for m in messages %}{% if m.content == 'no' %}{{ raise_exception('not this') }}{% endif %}"
    bench.put("model/chat_template.jinja", f"{template}{{{{ m.content }}}}</s>{{% endfor %}}".encode())
    turn = {"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]}
    late = {"messages": [{"role": "user", "content": "no"}, {"role": "assistant", "content": "a"}]}
    bench.put("train.jsonl", b"".join(json.dumps(row).encode() + b"\n" for row in [*[turn] * 1500, late]))
    code, report, ended = report_of(bench, capsys)
    assert code == ExitCode.DATASET_INVALID
    assert "train.jsonl:1501: found a conversation that the chat template refuses: not this" in ended.message
    assert (verdicts(report)["template"], verdicts(report)["tokens"]) == (Verdict.PASSED, Verdict.FAILED)
    assert report.problem_count == 1


def test_a_tokenizer_that_is_damaged(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.put("model/tokenizer.json", b"{}")
    code, report, ended = report_of(bench, capsys)
    assert code == ExitCode.MODEL_INVALID
    assert "tokenizer.json cannot be read as a tokenizer" in ended.message
    assert verdicts(report)["dataset"] is Verdict.PASSED


def test_a_model_without_tokenizer_json(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.drop("model/tokenizer.json")
    bench.put("model/tokenizer.model", b"SentencePiece")
    code, report, _ = report_of(bench, capsys)
    assert (code, verdicts(report)["tokens"], report.tokens) == (0, Verdict.SKIPPED, None)


def test_rows_for_validation_are_counted(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.put("train.jsonl", b"".join(ROW.replace(b"2?", b"%d?" % number) for number in range(30)))
    bench.sections = {"dataset": {"validation": {"fraction": "0.2"}}, "training": {"batchSize": 8, "epochs": 1}}
    code, report, _ = report_of(bench, capsys)
    assert code == 0
    assert "30 rows of promptCompletion" in (said := _message(report, "dataset"))
    assert said.endswith(", about 6 of them kept out for validation")
    assert report.tokens is not None
    assert report.tokens.steps == 3

    bench.put("own.jsonl", ROW * 4)
    bench.sections = {"dataset": {"validation": {"uri": f"{bench.base}/own.jsonl"}}}
    _, report, _ = report_of(bench, capsys)
    assert _message(report, "dataset").endswith(", 4 rows for validation")


def test_rows_for_validation_are_looked_at_as_the_others(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.sections = {"dataset": {"validation": {"uri": f"{bench.base}/own.jsonl"}}}
    bench.put("own.jsonl", ROW + b'{"prompt": "a"}\n')
    code, report, ended = report_of(bench, capsys)
    assert (code, ended.reason) == (ExitCode.DATASET_INVALID, FailureReason.DATASET_INVALID)
    assert [(item.file, item.line) for item in report.problems] == [("own.jsonl", 2)]

    talk = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}
    refused = {"messages": [{"role": "user", "content": "no"}, {"role": "assistant", "content": "hello"}]}
    bench.put("train.jsonl", json.dumps(talk).encode() + b"\n")
    bench.put("own.jsonl", b"".join(json.dumps(item).encode() + b"\n" for item in (talk, refused)))
    refusal = "{% if messages[0].content == 'no' %}{{ raise_exception('not that') }}{% endif %}"
    turns = "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
    bench.sections["dataset"]["chatTemplate"] = refusal + turns
    code, report, _ = report_of(bench, capsys)
    assert code == ExitCode.DATASET_INVALID
    assert [(item.file, item.line) for item in report.problems] == [("own.jsonl", 2)]
    assert "not that" in report.problems[0].found

    bench.put("own.jsonl", ROW)
    code, _, ended = report_of(bench, capsys)
    assert (code, ended.reason) == (ExitCode.INVALID_SPEC, FailureReason.INVALID_SPEC)
    assert "spec.dataset.chatTemplate" in ended.message


def test_rows_that_are_all_the_same_cannot_be_divided(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.sections = {"dataset": {"validation": {"fraction": "0.2"}}}
    code, _, ended = report_of(bench, capsys)
    assert code == ExitCode.DATASET_INVALID
    assert "spec.dataset.validation.fraction: 3 rows that are all the same" in ended.message


def _message(report: PreflightReport, name: str) -> str:
    return next(item.message for item in report.checks if item.name == name)


def test_an_empty_dataset(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.put("train.jsonl", b"")
    code, _, ended = report_of(bench, capsys)
    assert code == ExitCode.DATASET_INVALID
    assert "holds no rows" in ended.message


def test_a_missing_dataset(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.drop("train.jsonl")
    code, report, ended = report_of(bench, capsys)
    assert code == ExitCode.DATASET_NOT_FOUND
    assert f"{bench.base}/train.jsonl" in ended.message
    assert verdicts(report)["model"] is Verdict.PASSED, "the rest is checked all the same"


def test_a_missing_bucket(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.sections["dataset"] = {"uri": "s3://no-such-bucket/train.jsonl"}
    code, _, ended = report_of(bench, capsys)
    assert code == ExitCode.STORAGE_NOT_FOUND
    assert "no such bucket" in ended.message


@pytest.mark.parametrize("wrong", ["key", "secret"])
def test_wrong_keys(bench: Bench, capsys: pytest.CaptureFixture[str], wrong: str) -> None:
    admin = bench.keys
    bench.keys = Keys(*(("NOSUCHKEY1234", admin.secret_key) if wrong == "key" else (admin.access_key, "x" * 40)))
    code, report, ended = report_of(bench, capsys)
    assert code == ExitCode.STORAGE_ACCESS_DENIED
    assert ("InvalidAccessKeyId" if wrong == "key" else "SignatureDoesNotMatch") in ended.message
    for secret in (bench.keys.secret_key, bench.keys.access_key):
        assert secret not in report.to_json()
        assert secret not in ended.to_json()


def test_an_output_that_may_only_be_read(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.keys = bench.s3.reader
    code, report, ended = report_of(bench, capsys)
    assert code == ExitCode.STORAGE_ACCESS_DENIED
    others = {name: verdict for name, verdict in verdicts(report).items() if name not in ("storage.write", "memory")}
    assert others == dict.fromkeys(others, Verdict.PASSED)
    assert ended.message.startswith("storage.write: writing")
    assert "AccessDenied" in ended.message


def test_an_output_in_which_nothing_may_be_deleted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with s3server.running() as server:
        bench = Bench(server, tmp_path, "nodelete")
        deny = {
            "Effect": "Deny",
            "Principal": "*",
            "Action": ["s3:DeleteObject"],
            "Resource": [f"arn:aws:s3:::{s3server.BUCKET}/*"],
        }
        policy = json.dumps({"Version": "2012-10-17", "Statement": [deny]})
        server.client().put_bucket_policy(Bucket=s3server.BUCKET, Policy=policy)
        code, report, _ = report_of(bench, capsys)
        assert code == 0, report
        (writing,) = [item for item in report.checks if item.name == "storage.write"]
        assert "the probe stays there" in writing.message
        assert len(bench.outputs()) == 1


_SMALL = """
import re, resource, sys
from hashlib import sha256
from pathlib import Path
from finetune_trainer import preflight
taken = int(re.search(r"VmSize:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) << 10
resource.setrlimit(resource.RLIMIT_AS, (taken + (64 << 20),) * 2)
sys.exit(preflight.main(sys.argv[1:]))
"""


def test_memory_that_runs_out_has_a_reason(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(b'{"text": "' + b"x" * (100 << 20) + b'"}\n')
    recipe = local_recipe(tmp_path, dataset={"limits": {"maxLineBytes": 1 << 30}})
    done = run_child(_SMALL, recipe, {TERMINATION_ENV: str(tmp_path / "termination")})
    ended = Termination.read((tmp_path / "termination").read_text())
    assert ended is not None
    assert (done.returncode, ended.reason) == (ExitCode.HOST_OUT_OF_MEMORY, FailureReason.HOST_OUT_OF_MEMORY)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"model.safetensors": None}, ExitCode.MODEL_INVALID, "safetensors"),
        ({"model.safetensors": None, "pytorch_model.bin": b"x"}, ExitCode.MODEL_INVALID, "save_pretrained"),
        ({"config.json": None}, ExitCode.MODEL_INVALID, "config.json"),
        ({"config.json": b"{}"}, ExitCode.MODEL_INVALID, "model_type"),
        ({"config.json": b"<html>"}, ExitCode.MODEL_INVALID, "is not JSON"),
        ({"tokenizer.json": None}, ExitCode.MODEL_INVALID, "tokenizer"),
        ({"model.safetensors": b"version https://git-lfs.github.com"}, ExitCode.MODEL_INVALID, "Git LFS"),
        ({"model.safetensors": weights(10)[:-1]}, ExitCode.MODEL_INVALID, "damaged"),
        (
            {"model.safetensors.index.json": b'{"weight_map": {"a": "model-00001-of-00002.safetensors"}}'},
            ExitCode.MODEL_INVALID,
            "lacks model-00001-of-00002.safetensors",
        ),
        (
            {"model.safetensors": None, "adapter_model.safetensors": weights(10)},
            ExitCode.MODEL_INVALID,
            "no weights in model.safetensors",
        ),
        (
            {"model.safetensors": None, "model-00001-of-00002.safetensors": weights(10)},
            ExitCode.MODEL_INVALID,
            "model.safetensors.index.json",
        ),
        (
            {"config.json": b'{"model_type": "llama", "quantization_config": {"quant_method": "awq"}}'},
            ExitCode.NOT_SUPPORTED,
            "spec.model.quantization: ",
        ),
        (
            {"config.json": b'{"model_type": "llama", "attn_implementation": "kernels-community/flash-attn2"}'},
            ExitCode.NOT_SUPPORTED,
            "attn_implementation: kernels-community/flash-attn2",
        ),
        (
            {"config.json": b'{"model_type": "kimi", "text_config": {"quantization_config": {"quant_method": "fp8"}}}'},
            ExitCode.NOT_SUPPORTED,
            "are quantised already (fp8)",
        ),
        ({"config.json": b'{"model_type": "t5"}'}, ExitCode.NOT_SUPPORTED, "model_type t5 is an encoder-decoder"),
        ({"config.json": b'{"model_type": "bert"}'}, ExitCode.NOT_SUPPORTED, "bert is an encoder: in it a token sees"),
        (
            {"config.json": b'{"model_type": "qwen2_5_vl"}'},
            ExitCode.NOT_SUPPORTED,
            "use the text model of the family (Qwen 2.5)",
        ),
        (
            {"config.json": b'{"model_type": "own", "auto_map": {"AutoModelForCausalLM": "modeling.Own"}}'},
            ExitCode.NOT_SUPPORTED,
            "runs only with model.trustRemoteCode",
        ),
        (
            {
                "config.json": b'{"model_type": "llama", "num_hidden_layers": 1}',
                "model.safetensors": weights(10, "model.layers.1.mlp.up_proj.weight"),
            },
            ExitCode.MODEL_INVALID,
            "the files have 2 layers, and config.json says 1",
        ),
        (
            {"model.safetensors": weights(10, dtype="F8_E4M3")},
            ExitCode.NOT_SUPPORTED,
            "in 8 bits (F8_E4M3), and only plain weights",
        ),
        (dict.fromkeys(MODEL), ExitCode.MODEL_NOT_FOUND, "no such object or prefix"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_models(
    s3: S3Server,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, bytes | None],
    code: ExitCode,
    words: str,
) -> None:
    bench = Bench(s3, tmp_path, f"models-{tmp_path.name}")
    for file, content in changes.items():
        if content is None:
            bench.drop(f"model/{file}")
        else:
            bench.put(f"model/{file}", content)
    found, report, ended = report_of(bench, capsys)
    assert found == code, ended.message
    assert words in ended.message
    assert verdicts(report)["dataset"] is Verdict.PASSED, "the rest is checked all the same"
    assert bench.outputs() == []


ADAPTER_CONFIG = {"peft_type": "LORA", "r": 16, "lora_alpha": 32, "target_modules": ["model.layers.0.mlp.up_proj"]}


@pytest.mark.parametrize(
    ("config", "code", "said"),
    [
        (ADAPTER_CONFIG, 0, "continues from s3://"),
        (ADAPTER_CONFIG | {"r": 8}, ExitCode.INVALID_SPEC, "its rank is 8, and spec.lora.rank is 16"),
        (None, ExitCode.MODEL_NOT_FOUND, "spec.lora.initialAdapterUri: "),
        *(
            (ADAPTER_CONFIG | {field: value}, ExitCode.MODEL_INVALID, f"another type than PEFT's in {field}")
            for field, value in (("r", "16"), ("target_modules", 7), ("modules_to_save", {"a": 1}), ("bias", []))
        ),
    ],
    ids=["fits", "another rank", "gone", "rank as text", "modules as a number", "modules as a map", "bias as a list"],
)
def test_an_adapter_to_continue_from(
    s3: S3Server,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    config: dict[str, Any] | None,
    code: int,
    said: str,
) -> None:
    bench = Bench(s3, tmp_path, f"adapters-{tmp_path.name}")
    if config is not None:
        bench.put("adapter/adapter_config.json", json.dumps(config).encode())
        bench.put("adapter/adapter_model.safetensors", weights(10))
    bench.sections["lora"] = {"initialAdapterUri": f"{bench.base}/adapter"}
    found, report, _ = report_of(bench, capsys)
    assert found == code
    [check] = [item for item in report.checks if item.name == "adapter"]
    assert said in check.message


def put_adapter(bench: Bench, fingerprint: str, uid: str | None = None) -> None:
    place = f"out/tiny/{fingerprint[:12]}"
    manifest = Manifest.model_validate(
        {
            "fingerprint": fingerprint,
            "adapter": "1-abcdefgh",
            "files": [
                {"path": "1-abcdefgh/adapter_model.safetensors", "size": 5, "sha256": sha256(b"12345").hexdigest()}
            ],
            "baseModel": f"{bench.base}/model",
            "dataset": [],
            "rank": 16,
            "targetModules": ["q_proj"],
            "attempt": 1,
            "writer": "w",
            "jobUid": uid,
            "created": "2026-01-01T00:00:00Z",
        }
    )
    bench.put(f"{place}/1-abcdefgh/adapter_model.safetensors", b"12345")
    bench.put(f"{place}/manifest.json", manifest.to_json().encode())


def test_an_adapter_of_the_same_run(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    _, first, _ = report_of(bench, capsys)
    assert first.fingerprint is not None
    put_adapter(bench, first.fingerprint)
    before = bench.outputs()

    code, report, ended = report_of(bench, capsys)
    assert (code, ended.outcome) == (0, Outcome.REUSED)
    assert ended.output is not None
    assert ended.output.uri == f"{bench.base}/out/tiny/{first.fingerprint[:12]}/1-abcdefgh"
    assert verdicts(report)["dataset"] is Verdict.SKIPPED

    bench.sections["output"] = {"onExisting": "Fail"}
    code, _, ended = report_of(bench, capsys)
    assert (code, ended.reason) == (ExitCode.OUTPUT_CONFLICT, FailureReason.OUTPUT_CONFLICT)
    assert "manifest.json is there already" in ended.message

    bench.sections["output"] = {"onExisting": "Replace"}
    code, _, ended = report_of(bench, capsys)
    assert (code, ended.outcome) == (0, Outcome.SUCCEEDED)
    assert bench.outputs() == before

    bench.sections["output"] = {}
    bench.drop(f"out/tiny/{first.fingerprint[:12]}/1-abcdefgh/adapter_model.safetensors")
    code, _, ended = report_of(bench, capsys)
    assert code == ExitCode.OUTPUT_CONFLICT
    assert "1 of its files are missing" in ended.message


@pytest.mark.parametrize("mode", ["Fail", "Replace"])
def test_an_adapter_of_the_same_job(bench: Bench, capsys: pytest.CaptureFixture[str], mode: str) -> None:
    bench.sections = {"job": {"uid": "uid-1"}, "output": {"onExisting": mode}}
    _, first, _ = report_of(bench, capsys)
    assert first.fingerprint is not None

    put_adapter(bench, first.fingerprint, uid="uid-1")
    code, _, ended = report_of(bench, capsys)
    assert (code, ended.outcome) == (0, Outcome.REUSED)

    put_adapter(bench, first.fingerprint, uid="uid-2")
    code, _, ended = report_of(bench, capsys)
    assert code == (ExitCode.OUTPUT_CONFLICT if mode == "Fail" else 0)
    assert ended.outcome is (Outcome.FAILED if mode == "Fail" else Outcome.SUCCEEDED)

    bench.sections["job"] = {"uid": ""}
    put_adapter(bench, first.fingerprint, uid="")
    assert report_of(bench, capsys)[2].outcome is not Outcome.REUSED, "local runs own nothing"


def test_the_fingerprint_follows_the_data(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    _, first, _ = report_of(bench, capsys)
    bench.put("train.jsonl", ROW * 4)
    _, second, _ = report_of(bench, capsys)
    bench.sections["training"] = {"seed": 7}
    _, third, _ = report_of(bench, capsys)
    assert len({first.fingerprint, second.fingerprint, third.fingerprint}) == 3


def test_a_tokenizer_that_panics_is_an_end_with_a_reason(bench: Bench) -> None:
    """PyO3's PanicException is no Exception."""
    made = json.loads(tokenizer_json())
    made["normalizer"] = {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""}
    bench.put("model/tokenizer.json", json.dumps(made).encode())
    bench.put("train.jsonl", json.dumps({"text": "a" * 60 + "b"}).encode() + b"\n")

    code, ended = bench.run()

    assert code != 0
    assert ended.reason is not None
    assert "retry-limit-in-match" in ended.message


def test_every_wrong_field_is_named(bench: Bench) -> None:
    bench.sections = {"lora": {"rank": 0}, "model": {"uri": "hf:/x"}, "nonsense": {}}
    code, ended = bench.run()
    assert code == ExitCode.INVALID_SPEC
    for words in ("spec.lora.rank: should be", "spec.model.uri: must be hf://", "spec.nonsense: unknown field"):
        assert words in ended.message


def test_a_server_that_dies_half_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with s3server.running() as server:
        bench = Bench(server, tmp_path, "dies")
        code, _, _ = report_of(bench, capsys)
        assert code == 0
        server.kill()
        code, report, ended = report_of(bench, capsys)
    assert code == ExitCode.STORAGE_UNAVAILABLE
    assert f"{bench.base}/train.jsonl at {server.endpoint}" in ended.message
    assert verdicts(report)["model"] is Verdict.SKIPPED, "one wait for a dead server is enough"
    assert f'waiting message="{server.endpoint}: nothing answers there: the connection is refused' in caplog.text


def test_sigterm_is_an_end_with_a_reason(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never answers
        recipe = {
            "job": {"name": "tiny"},
            "model": {"uri": f"{bench.base}/model"},
            "dataset": {"uri": f"{bench.base}/train.jsonl"},
            "output": {"uri": f"{bench.base}/out"},
            "storage": {"endpoint": f"http://127.0.0.1:{silent.getsockname()[1]}"},
        }
        (bench.folder / "recipe.json").write_text(json.dumps(recipe))
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[3] / "trainer"),
            STORAGE_SECRET_ENV: str(s3server.mount(bench.folder / "keys", bench.keys).directory),
            TERMINATION_ENV: str(bench.folder / "termination"),
        }
        script = "import sys; from finetune_trainer import preflight; sys.exit(preflight.main(sys.argv[1:]))"
        arguments = [sys.executable, "-c", script, "--recipe", str(bench.folder / "recipe.json")]
        with subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL) as process:
            connection, _ = silent.accept()  # it is in the middle of a check
            with connection:
                process.terminate()
                assert process.wait() == ExitCode.PREEMPTED
    ended = Termination.read((bench.folder / "termination").read_text())
    assert ended is not None
    assert (ended.outcome, ended.reason) == (Outcome.FAILED, FailureReason.PREEMPTED)


def local_recipe(folder: Path, **sections: Any) -> Path:
    """A recipe with file:// places; the data is `train.jsonl` in the folder."""
    model = folder / "model"
    model.mkdir()
    for name, content in MODEL.items():
        (model / name).write_bytes(content)
    recipe = {
        "job": {"name": "tiny"},
        "model": {"uri": f"file://{model}"},
        "output": {"uri": f"file://{folder}/out"},
        **sections,
        "dataset": {"uri": f"file://{folder}/train.jsonl", **sections.get("dataset", {})},
    }
    (folder / "recipe.json").write_text(json.dumps(recipe))
    return folder / "recipe.json"


def run_child(script: str, recipe: Path, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", script, "--recipe", str(recipe)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "trainer"), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_nothing_heavy_is_imported(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(ROW)
    script = (
        "import sys; from finetune_trainer import preflight; code = preflight.main(sys.argv[1:]); "
        "heavy = {'torch', 'transformers', 'datasets', 'numpy', 'peft', 'trl', 'accelerate'} & set(sys.modules); "
        "assert not heavy, heavy; sys.exit(code)"
    )
    done = run_child(script, local_recipe(tmp_path), {})
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert "ok      dataset" in done.stdout
    assert not (tmp_path / "out").exists()
