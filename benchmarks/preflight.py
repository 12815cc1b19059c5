"""Measures the speed and the memory of preflight's check of data, on one core.

    python benchmarks/preflight.py [--megabytes 200] [--large]

Rows of each kind are written to a temporary folder and checked in a new process. `cpu` is the CPU time of that process,
which other work on the machine disturbs less than wall time. `json.loads`, the parser of the standard library, reads
the same lines for comparison between machines.
"""

import argparse
import csv
import gzip
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

_SENTENCE = "the quick brown fox jumps over a lazy dog please tell me how to reset my password and thank you"
_WORDS = _SENTENCE.split()
_CHILD = """
import json, re, sys, time
from pathlib import Path
from finetune_trainer.contract.recipe import DatasetSpec, StorageSpec
from finetune_trainer.data.scan import DatasetScan
from finetune_trainer.storage.registry import StoreRegistry
from finetune_trainer.contract.uri import parse_uri

path = sys.argv[1]
places = StoreRegistry(StorageSpec(), None)
uri = parse_uri("file://" + path)
objects = list(places(uri).stat(uri))
dataset = DatasetSpec.model_validate({"uri": str(uri), "limits": {"maxCompressionRatio": 10000}})
scan = DatasetScan(dataset, objects, places)
start = time.process_time()
for _ in scan:
    pass
seconds = time.process_time() - start
assert not scan.findings.count, scan.findings.message()
# Not ru_maxrss: it is inherited through fork and exec.
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
bare = 0.0
if path.endswith(".jsonl"):
    with open(path, "rb") as file:
        lines = file.read(64 << 20).split(b"\\n")[:-1]
    start = time.process_time()
    for line in lines:
        json.loads(line)
    bare = sum(map(len, lines)) / (time.process_time() - start) / 1e6
print(json.dumps({"rows": scan.rows, "bytes": scan.bytes, "seconds": seconds, "peak": peak, "bare": bare}))
"""


def _text(dice: random.Random, words: int) -> str:
    return " ".join(dice.choices(_WORDS, k=words))


def _chat(dice: random.Random) -> object:
    turns = (("system", 12), ("user", 40), ("assistant", 120))
    return {"messages": [{"role": role, "content": _text(dice, words)} for role, words in turns]}


def _long_chat(dice: random.Random) -> object:
    return {
        "messages": [{"role": role, "content": _text(dice, 150)} for _ in range(4) for role in ("user", "assistant")]
    }


def _prompt(dice: random.Random) -> object:
    return {"prompt": _text(dice, 60), "completion": " " + _text(dice, 120)}


def _alpaca(dice: random.Random) -> object:
    return {"instruction": _text(dice, 20), "input": "", "output": _text(dice, 80)}


def _document(dice: random.Random) -> object:
    return {"text": _text(dice, 600)}


def _emoji(dice: random.Random) -> object:
    return {"text": _text(dice, 300) + " 👍 日本語のテキスト é"}


_KINDS: dict[str, Callable[[random.Random], object]] = {
    "messages, 3 turns, 1 KB": _chat,
    "messages, 8 turns, 6 KB": _long_chat,
    "prompt and completion, 1 KB": _prompt,
    "alpaca, 0.5 KB": _alpaca,
    "text, 3 KB": _document,
    "text with emoji, 1.5 KB": _emoji,
}


_LARGE_ROWS = 10_000_000


def _lines(kind: Callable[[random.Random], object], size: int) -> Iterator[bytes]:
    """Returns `size` bytes of lines of a kind. A few thousand different lines repeat."""
    dice = random.Random(0)
    block = b"".join(json.dumps(kind(dice), ensure_ascii=False).encode() + b"\n" for _ in range(4000))
    for _ in range(max(1, size // len(block))):
        yield block


def _different(rows: int) -> Iterator[bytes]:
    """Returns lines of alpaca, half a kilobyte each, all different."""
    dice = random.Random(0)
    asked, generate_answers = [_text(dice, 20) for _ in range(1999)], [_text(dice, 80) for _ in range(1997)]
    for start in range(0, rows, 1000):
        numbers = range(start, min(rows, start + 1000))
        yield "".join(
            f'{{"instruction": "{n}: {asked[n % 1999]}", "input": "", "output": "{generate_answers[n * 7 % 1997]}"}}\n'
            for n in numbers
        ).encode()


def _prompts(size: int) -> Iterator[dict[str, str]]:
    """Returns `size` bytes of rows with prompt and completion. A few thousand different rows repeat."""
    dice = random.Random(0)
    rows = [{"prompt": _text(dice, 60), "completion": " " + _text(dice, 120)} for _ in range(4000)]
    row_bytes = sum(len(text) for row in rows for text in row.values()) / len(rows)
    return islice(cycle(rows), int(size / row_bytes))


def _write_json(path: Path, size: int) -> None:
    with path.open("w") as file:
        file.write("[")
        file.writelines(f"{',' if index else ''}{json.dumps(row)}" for index, row in enumerate(_prompts(size)))
        file.write("]")


def _write_csv(path: Path, size: int) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["prompt", "completion"])
        writer.writeheader()
        writer.writerows(_prompts(size))


def _write_parquet(path: Path, size: int) -> None:
    pq.write_table(pa.Table.from_pylist(list(_prompts(size))), path)


def _write_zstd(path: Path, size: int) -> None:
    with pa.CompressedOutputStream(str(path), "zstd") as stream:
        for row in _prompts(size):
            stream.write(json.dumps(row).encode() + b"\n")


_FORMATS: dict[str, Callable[[Path, int], None]] = {
    "json": _write_json,
    "csv": _write_csv,
    "parquet": _write_parquet,
    "jsonl.zst": _write_zstd,
}


def _measure(path: Path) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-c", _CHILD, str(path)], capture_output=True, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=200, help="size of each file (default: 200)")
    parser.add_argument("--large", action="store_true", help="a file of 5 GB, ten million different rows, as well")
    options = parser.parse_args()
    size = options.megabytes * 1_000_000
    print(f"{'rows':28}  {'rows':>9}  {'MB':>6}  {'MB/s cpu':>8}  {'json.loads':>10}  {'peak MiB':>8}")
    with tempfile.TemporaryDirectory() as folder:
        for name, kind in _KINDS.items():
            path = Path(folder) / "rows.jsonl"
            with path.open("wb") as file:
                file.writelines(_lines(kind, size))
            _print(name, _measure(path))
        packed = Path(folder) / "rows.jsonl.gz"
        with gzip.open(packed, "wb", compresslevel=1) as file:
            file.writelines(_lines(_chat, size))
        _print("messages, 3 turns, gzip", _measure(packed))
        for name, write in _FORMATS.items():
            path = Path(folder) / f"rows.{name}"
            write(path, size)
            _print(f"prompt, completion: {name}", _measure(path))
            path.unlink()
        if options.large:
            path = Path(folder) / "rows.jsonl"
            with path.open("wb") as file:
                file.writelines(_different(_LARGE_ROWS))
            _print("alpaca, different rows", _measure(path))


def _print(name: str, result: dict[str, float]) -> None:
    speed = result["bytes"] / result["seconds"] / 1e6
    bare = f"{result['bare']:10.0f}" if result["bare"] else " " * 10
    print(
        f"{name:28}  {result['rows']:9,.0f}  {result['bytes'] / 1e6:6.0f}  {speed:8.0f}  {bare}  {result['peak']:8.0f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
