"""The Hub without a network: what a filled cache gives, and what an empty one says."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

_SCRIPT = """
import json, sys
from pathlib import Path
from finetune_trainer.contract.failure import TrainerError
from finetune_trainer.contract.uri import parse_uri
from finetune_trainer.storage.hub import HubStore

store = HubStore(cache=Path(sys.argv[1]))
try:
    found = store.stat(parse_uri("hf://org/name"))
    [config] = [item for item in found if item.uri.endswith("config.json")]
    store.download(config, Path(sys.argv[2]), lambda _: None)
    print(json.dumps({"found": [item.to_dict() for item in found], "commit": store.commit,
                      "content": store.open(config).read().decode()}))
except TrainerError as error:
    print(json.dumps({"reason": error.reason, "message": error.message}))
"""


def ask(cache: Path, target: Path) -> dict[str, object]:
    """In a process of its own: the Hub's client reads its switches when it is imported."""
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(Path(__file__).parents[3] / "trainer"),
    }
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(cache), str(target)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    answer = json.loads(done.stdout)
    assert isinstance(answer, dict)
    return answer


def test_a_cached_snapshot_is_used(tmp_path: Path) -> None:
    commit, root = "1" * 40, tmp_path / "cache/models--org--name"
    content = b'{"model_type": "llama"}'
    blob = root / "blobs" / hashlib.sha256(content).hexdigest()
    blob.parent.mkdir(parents=True)
    blob.write_bytes(content)
    (root / "refs").mkdir()
    (root / "refs/main").write_text(commit)
    (root / "snapshots" / commit).mkdir(parents=True)
    (root / "snapshots" / commit / "config.json").symlink_to(f"../../blobs/{blob.name}")
    answer = ask(tmp_path / "cache", tmp_path / "target.json")
    assert answer["commit"] == commit
    assert answer["content"] == content.decode()
    assert answer["found"] == [
        {"uri": "hf://org/name/config.json", "size": len(content), "etag": blob.name, "sha256": blob.name}
    ]
    assert (tmp_path / "target.json").read_bytes() == content


def test_an_empty_cache_says_what_to_do(tmp_path: Path) -> None:
    answer = ask(tmp_path, tmp_path / "target")
    assert answer["reason"] == "ModelNotFound"
    assert "hf://org/name at revision main" in str(answer["message"])
    assert "mirror the model to s3:// or pvc://" in str(answer["message"])
