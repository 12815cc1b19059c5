"""Trains through an S3 server that misbehaves by chance, and compares what comes out with an undisturbed training.

    python benchmarks/storage_faults.py --seeds 10

Every row is the real preflight and the real trainer, each a process of its own, on the tiny random model; model, data,
checkpoints and output are in S3, behind a proxy that injects faults (tests/s3faults.py).
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.pop(0)  # this folder, whose trainer.py would hide tests/trainer
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from benchmarks.tables import Table

import s3faults
import s3server
from finetune_trainer.contract.layout import STORAGE_SECRET_ENV
from finetune_trainer.contract.manifest import Manifest
from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.contract.termination import Termination
from s3faults import Fault, Plan
from trainer.pods import pod_environment
from trainer.running import QUESTIONS
from trainer.tiny_model import make_tiny_model


@dataclass(frozen=True, kw_only=True)
class Weather:
    """How a server misbehaves.

    Attributes:
        rate: the chance that a fault begins.
        burst: requests that it lasts for, at most.
        kinds: the faults.
        after: requests without any, at the beginning.
    """

    rate: float
    burst: int
    kinds: Sequence[Fault] = s3faults.BRIEF
    after: int = 0

    def plan(self, seed: int) -> Plan:
        """The weather of a day."""
        chance = s3faults.random_faults(seed, self.rate, self.kinds, self.burst)
        return lambda request: chance(request) if request.number >= self.after else None


WEATHERS = {
    "one request in ten": Weather(rate=0.1, burst=1),
    "one request in three": Weather(rate=1 / 3, burst=1),
    "bursts of up to 6": Weather(rate=0.1, burst=6),
    "bursts of up to 30 refusals": Weather(rate=0.02, burst=30, kinds=(Fault.ERROR, Fault.SLOW_DOWN)),
    "torn bodies, one in three": Weather(rate=1 / 3, burst=2, kinds=(Fault.CUT_ANSWER, Fault.RESET_ANSWER)),
    "lost answers, one in three": Weather(rate=1 / 3, burst=2, kinds=(Fault.LOST_ANSWER,)),
    "drips, one in fifty": Weather(rate=0.02, burst=1, kinds=(Fault.DRIP,)),
    "nothing but 503": Weather(rate=1, burst=1, kinds=(Fault.SLOW_DOWN,)),
    "bodies cut for ever": Weather(rate=1, burst=1, kinds=(Fault.CUT_ANSWER,)),
    "silent for ever": Weather(rate=1, burst=1, kinds=(Fault.SILENCE,)),
    "drips for ever": Weather(rate=1, burst=1, kinds=(Fault.DRIP,)),
    "silent from the 70th request on": Weather(rate=1, burst=1, kinds=(Fault.SILENCE,), after=70),
}


def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2, help="trainings for each kind of weather (default: 2)")
    parser.add_argument("--only", nargs="+", choices=list(WEATHERS), default=list(WEATHERS), help="kinds of weather")
    options = parser.parse_args()

    rows: list[Sequence[str]] = []
    wrong = 0
    with tempfile.TemporaryDirectory() as folder, s3server.running() as server:
        bench = _Bench(server, Path(folder))
        whole = bench.train("whole", server.endpoint)
        if whole.digest is None:
            raise SystemExit(f"the undisturbed training failed: {whole.log}")
        for name in options.only:
            for seed in range(options.seeds):
                weather = WEATHERS[name]
                with s3faults.running(server.endpoint) as faults:
                    faults.plan = weather.plan(seed)
                    end = bench.train(f"{list(WEATHERS).index(name)}-{seed}", faults.endpoint)
                    happened = sum(faults.counts().values())
                same = "same" if end.digest == whole.digest else "none" if end.digest is None else "DIFFERS"
                bad = same == "DIFFERS" or end.leftovers or "Traceback" in end.log
                wrong += bool(bad)
                said = "; ".join([end.said, *end.leftovers])
                rows.append([name, str(seed), f"{happened} of {len(faults.seen)}", f"{end.seconds:.0f}", same, said])
                print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
                if bad:
                    print(end.log, file=sys.stderr, flush=True)
    heads = ["storage", "seed", "requests that failed", "s", "adapter", "how it ended"]
    print(Table(title="Storage that misbehaves", heads=heads, rows=rows).text())
    sys.exit(1 if wrong else 0)


@dataclass(frozen=True, kw_only=True)
class End:
    """How preflight and training ended.

    Attributes:
        seconds: both together.
        digest: SHA-256 of the adapter's weights; None when there is none.
        said: "Succeeded", or the reason and the message of the failure.
        leftovers: what should not be there.
        log: standard error of both.
    """

    seconds: float
    digest: str | None
    said: str
    leftovers: Sequence[str]
    log: str


class _Bench:
    """The server with model and data."""

    def __init__(self, server: s3server.S3Server, folder: Path) -> None:
        self._server, self._folder = server, folder
        base = folder / "model"
        make_tiny_model(base)
        for path in base.iterdir():
            server.put(f"base/{path.name}", path.read_bytes())
        server.put("rows.jsonl", "".join(json.dumps(row) + "\n" for row in QUESTIONS * 200).encode())
        s3server.mount(folder / "keys", server.admin)

    def train(self, name: str, endpoint: str) -> End:
        """Preflight and training of a job with an output of its own."""
        folder = self._folder / name
        (folder / "work").mkdir(parents=True)
        recipe = self._recipe(name, endpoint)
        (folder / "recipe.json").write_text(recipe.to_json())
        begin = time.monotonic()
        log, ended = "", None
        for command in (["preflight"], []):
            message = folder / f"termination-{command[:1]}"
            process = subprocess.run(
                [sys.executable, "-m", "finetune_trainer", *command],
                env=pod_environment(
                    folder / "recipe.json",
                    folder / "work",
                    message,
                    **{STORAGE_SECRET_ENV: str(self._folder / "keys")},
                ),
                capture_output=True,
                text=True,
                check=False,
            )
            log += process.stderr
            ended = Termination.read(message.read_text())
            if ended is None:
                raise SystemExit(f"no termination message:\n{process.stdout}{process.stderr}")
            if process.returncode:
                break
        assert ended is not None
        said = f"{ended.outcome}" if ended.reason is None else f"{ended.reason}: {ended.message}"
        digest, leftovers = self._look(name, folder, committed=ended.output is not None)
        return End(seconds=time.monotonic() - begin, digest=digest, said=said, leftovers=leftovers, log=log)

    def _look(self, name: str, folder: Path, *, committed: bool) -> tuple[str | None, list[str]]:
        keys = set(self._server.keys(f"{name}/"))
        manifests = [key for key in keys if key.endswith("/manifest.json")]
        wrong = [f"left in the pod: {path}" for path in (folder / "work").iterdir()]
        uploads = self._server.client().list_multipart_uploads(Bucket=s3server.BUCKET, Prefix=f"{name}/")
        wrong += [f"upload not ended: {item['Key']}" for item in uploads.get("Uploads", [])]
        if len(manifests) != committed:
            wrong.append(f"{len(manifests)} manifests")
        if not manifests:
            # Checkpoints are for the next attempt, and may stay.
            return None, [*wrong, *(f"left: {key}" for key in sorted(keys) if "checkpoints/" not in key)]
        manifest = Manifest.model_validate_json(self._server.get(manifests[0]))
        place = manifests[0].removesuffix("manifest.json")
        digest = None
        for file in manifest.files:
            found = hashlib.sha256(self._server.get(place + file.path)).hexdigest()
            if found != file.sha256:
                wrong.append(f"{file.path} differs from its manifest")
            if file.path.endswith("adapter_model.safetensors"):
                digest = found
        expected = {place + file.path for file in manifest.files} | set(manifests)
        extra = keys - expected - {f"{name}/tiny/latest.json"}
        return digest, [*wrong, *(f"left: {key}" for key in sorted(extra))]

    def _recipe(self, name: str, endpoint: str) -> Recipe:
        return Recipe.model_validate(
            {
                "job": {"name": "tiny"},
                "model": {"uri": f"s3://{s3server.BUCKET}/base"},
                "dataset": {"uri": f"s3://{s3server.BUCKET}/rows.jsonl"},
                "lora": {"rank": 4, "dropout": "0.1"},
                "training": {"maxSteps": 12, "batchSize": 8, "learningRate": "1e-2"},
                "checkpoint": {"everySteps": 3},
                "output": {"uri": f"s3://{s3server.BUCKET}/{name}"},
                "storage": {"endpoint": endpoint, "secretRef": {"name": "keys"}},
            }
        )


if __name__ == "__main__":
    main()
