"""Trains with storage that fails at random, and compares the adapter with that of an undisturbed training.

    python benchmarks/storage_faults.py --seeds 10
    python benchmarks/storage_faults.py --seeds 10 --hub

Every row runs the real preflight and the real trainer, each in a new process, on the tiny random model. Model, data,
checkpoints and output are in S3, behind a proxy that injects faults (tests/httpfaults.py). With --hub the model is on a
Hub (tests/hubserver.py) behind such proxies and is downloaded into a cache, and S3 has no faults.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.pop(0)  # this folder, whose trainer.py would hide tests/trainer
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from benchmarks.tables import Table

import httpfaults
import hubserver
import s3server
from finetune_trainer.contract.failure import FailureReason
from finetune_trainer.contract.layout import STORAGE_SECRET_ENV
from finetune_trainer.contract.manifest import Manifest
from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.contract.termination import Termination
from httpfaults import Fault, Plan
from trainer.pods import pod_environment
from trainer.running import QUESTIONS
from trainer.tiny_model import make_tiny_model


@dataclass(frozen=True, kw_only=True)
class Weather:
    """How a server fails.

    Attributes:
        rate: probability that a request begins a series of faults.
        burst: largest number of requests in a series.
        kinds: the faults.
        after: number of first requests without faults.
    """

    rate: float
    burst: int
    kinds: Sequence[Fault] = httpfaults.BRIEF
    after: int = 0

    def plan(self, seed: int) -> Plan:
        """Returns a random plan of faults."""
        chance = httpfaults.random_faults(seed, self.rate, self.kinds, self.burst)
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


_TOO_MANY = (Fault.TOO_MANY, Fault.TOO_MANY_FOR_NOW)
HUB_WEATHERS = {
    "one request in ten": Weather(rate=0.1, burst=1, kinds=(*httpfaults.BRIEF, *_TOO_MANY)),
    "one request in three": Weather(rate=1 / 3, burst=1, kinds=(*httpfaults.BRIEF, *_TOO_MANY)),
    "bursts of up to 6": Weather(rate=0.1, burst=6, kinds=(*httpfaults.BRIEF, *_TOO_MANY)),
    "bursts of up to 10 refusals": Weather(rate=0.1, burst=10, kinds=(Fault.ERROR, Fault.SLOW_DOWN, *_TOO_MANY)),
    "429, every other time": Weather(rate=0.5, burst=1, kinds=_TOO_MANY),
    "torn bodies, one in three": Weather(rate=1 / 3, burst=2, kinds=(Fault.CUT_ANSWER, Fault.RESET_ANSWER)),
    "drips, one in ten": Weather(rate=0.1, burst=1, kinds=(Fault.DRIP,)),
    "nothing but 429": Weather(rate=1, burst=1, kinds=(Fault.TOO_MANY,)),
    "nothing but 429 with Retry-After": Weather(rate=1, burst=1, kinds=(Fault.TOO_MANY_FOR_NOW,)),
    "nothing but 503": Weather(rate=1, burst=1, kinds=(Fault.SLOW_DOWN,)),
    "nothing but 500 from the 12th request on": Weather(rate=1, burst=1, kinds=(Fault.ERROR,), after=12),
    "bodies cut for ever, from the 4th request on": Weather(rate=1, burst=1, kinds=(Fault.CUT_ANSWER,), after=4),
    "bodies reset for ever, from the 4th request on": Weather(rate=1, burst=1, kinds=(Fault.RESET_ANSWER,), after=4),
    "silent from the 6th request on": Weather(rate=1, burst=1, kinds=(Fault.SILENCE,), after=6),
}


def main() -> None:
    """Runs the seeds and prints the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2, help="trainings for each kind of weather (default: 2)")
    parser.add_argument("--hub", action="store_true", help="the Hub misbehaves, and not S3")
    names = list(dict.fromkeys([*WEATHERS, *HUB_WEATHERS]))
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="kinds of weather")
    options = parser.parse_args()

    rows: list[Sequence[str]] = []
    wrong = 0
    with tempfile.TemporaryDirectory() as folder, s3server.running() as server:
        bench: _Bench = _HubBench(server, Path(folder)) if options.hub else _Bench(server, Path(folder))
        whole, _ = bench.weathered("whole", lambda _: None)
        if whole.digest is None:
            raise SystemExit(f"the undisturbed training failed: {whole.said}\n{whole.log}")
        for name, weather in (HUB_WEATHERS if options.hub else WEATHERS).items():
            for seed in range(options.seeds if name in options.only else 0):
                end, happened = bench.weathered(f"{names.index(name)}-{seed}", weather.plan(seed))
                same = "same" if end.digest == whole.digest else "none" if end.digest is None else "DIFFERS"
                bad = same == "DIFFERS" or end.leftovers or "Traceback" in end.log or not end.expected
                wrong += bool(bad)
                said = "; ".join([end.said, *end.leftovers])
                rows.append([name, str(seed), happened, f"{end.seconds:.0f}", same, said])
                print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
                if bad:
                    print(end.log, file=sys.stderr, flush=True)
    heads = ["storage", "seed", "requests that failed", "s", "adapter", "how it ended"]
    title = "A Hub that misbehaves" if options.hub else "Storage that misbehaves"
    print(Table(title=title, heads=heads, rows=rows).text())
    sys.exit(1 if wrong else 0)


@dataclass(frozen=True, kw_only=True)
class End:
    """How preflight and training ended.

    Attributes:
        seconds: duration of both together.
        digest: SHA-256 of the adapter's weights; None without an adapter.
        said: "Succeeded", or reason and message of the failure.
        expected: True when it succeeded, or failed because storage is unavailable.
        leftovers: files that should not exist.
        log: standard error of both.
    """

    seconds: float
    digest: str | None
    said: str
    expected: bool
    leftovers: Sequence[str]
    log: str


class _Bench:
    """The S3 server with model and data."""

    def __init__(self, server: s3server.S3Server, folder: Path) -> None:
        self._server, self._folder = server, folder
        self._base = folder / "model"
        make_tiny_model(self._base)
        for path in self._base.iterdir():
            server.put(f"base/{path.name}", path.read_bytes())
        server.put("rows.jsonl", "".join(json.dumps(row) + "\n" for row in QUESTIONS * 200).encode())
        s3server.mount(folder / "keys", server.admin)

    def weathered(self, name: str, plan: Plan) -> tuple[End, str]:
        """Runs preflight and training with a new output prefix, while the server fails by the plan.

        Returns their end, and the number of failed requests in words.
        """
        with httpfaults.running(self._server.endpoint) as faults:
            faults.plan = plan
            end = self.train(name, faults.endpoint)
            return end, _happened(faults)

    def train(self, name: str, endpoint: str, **environment: str) -> End:
        """Runs preflight and training, with S3 at this address."""
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
                    **{STORAGE_SECRET_ENV: str(self._folder / "keys")} | environment,
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
        return End(
            seconds=time.monotonic() - begin,
            digest=digest,
            said=said,
            expected=ended.reason in (None, FailureReason.STORAGE_UNAVAILABLE),
            leftovers=leftovers,
            log=log,
        )

    def _look(self, name: str, folder: Path, *, committed: bool) -> tuple[str | None, list[str]]:
        keys = set(self._server.keys(f"{name}/"))
        manifests = [key for key in keys if key.endswith("/manifest.json")]
        wrong = [f"left in the pod: {path}" for path in (folder / "work").iterdir()]
        uploads = self._server.client().list_multipart_uploads(Bucket=s3server.BUCKET, Prefix=f"{name}/")
        wrong += [f"upload not ended: {item['Key']}" for item in uploads.get("Uploads", [])]
        if len(manifests) != committed:
            wrong.append(f"{len(manifests)} manifests")
        if not manifests:
            # Checkpoints may stay, because a next attempt uses them.
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
                "model": self._model(name),
                "dataset": {"uri": f"s3://{s3server.BUCKET}/rows.jsonl"},
                "lora": {"rank": 4, "dropout": "0.1"},
                "training": {"maxSteps": 12, "batchSize": 8, "learningRate": "1e-2"},
                "checkpoint": {"everySteps": 3},
                "output": {"uri": f"s3://{s3server.BUCKET}/{name}"},
                "storage": {"endpoint": endpoint, "secretRef": {"name": "keys"}},
            }
        )

    def _model(self, name: str) -> dict[str, str]:  # noqa: ARG002 (the Hub's cache has it)
        return {"uri": f"s3://{s3server.BUCKET}/base"}


class _HubBench(_Bench):
    """The S3 server with the data, and a Hub with the model. Hub and file store are each behind a proxy."""

    def weathered(self, name: str, plan: Plan) -> tuple[End, str]:
        files = {path.name: path.read_bytes() for path in self._base.iterdir()}
        lock = threading.Lock()

        def locked(request: httpfaults.Request) -> Fault | None:
            # Each proxy numbers its own requests, but both share one plan.
            with lock:
                return plan(replace(request, number=len(front.seen) + len(back.seen)))

        with (
            hubserver.running() as hub,
            httpfaults.running(hub.endpoint) as front,
            httpfaults.running(hub.store) as back,
        ):
            hub.add("org/tiny", files)
            hub.store, front.plan, back.plan = back.endpoint, locked, locked
            end = self.train(name, self._server.endpoint, HF_ENDPOINT=front.endpoint, HOME=str(self._folder / name))
            return replace(end, leftovers=[*end.leftovers, *self._damage(name, files)]), _happened(front, back)

    def _damage(self, name: str, files: Mapping[str, bytes]) -> list[str]:
        """Returns the cached files that differ from the model's."""
        cache = self._folder / name / "cache"
        found = [path for path in cache.glob("*") if path.name.startswith(".")]
        wrong = [f"left in the cache: {path.name}" for path in found]
        for model in cache.glob("[!.]*"):
            damaged = [path.name for path in model.iterdir() if files.get(path.name) != path.read_bytes()]
            wrong += [f"damaged in the cache: {name}" for name in damaged]
        return wrong

    def _model(self, name: str) -> dict[str, str]:
        return {"uri": "hf://org/tiny", "cache": f"file://{self._folder / name / 'cache'}"}


def _happened(*proxies: httpfaults.Faults) -> str:
    failed = sum(sum(faults.counts().values()) for faults in proxies)
    return f"{failed} of {sum(len(faults.seen) for faults in proxies)}"


if __name__ == "__main__":
    main()
