"""Profiles: what they supply, in which order, and what their ceilings refuse."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_operator.api.crd import profile_definitions, profile_schema, spec_schema
from finetune_operator.api.finetunejob import Held, SpecError, compact_json, parse_spec
from finetune_operator.api.merge import leaves, merged, origins
from finetune_operator.api.profile import MAX_PROFILE_BYTES, Profile, profile_of
from finetune_operator.api.resolution import choose, effective, record_of, resolve
from finetune_operator.api.spec import FineTuneJobSpec, ProfileKind, ProfileRef
from finetune_operator.api.status import ProfileStatus
from finetune_operator.api.supplied import supplied_paths
from finetune_operator.profiles import shipped
from finetune_trainer.contract.fingerprint import fingerprint
from finetune_trainer.contract.recipe import JobIdentity

pytestmark = pytest.mark.extras

MINIMAL: dict[str, Any] = {
    "model": {"uri": "hf://meta-llama/Llama-2-7b-chat-hf"},
    "dataset": {"uri": "s3://data/support/train.jsonl"},
    "output": {"uri": "s3://models/adapters"},
}
DOCUMENT = (Path(__file__).parents[3] / "docs/training.md").read_text(encoding="utf-8")
LLAMA2 = yaml.safe_load(shipped("llama2-2023"))
OF_2023 = {".".join(keys): value for keys, value in leaves(LLAMA2["spec"])}


def profile(spec: dict[str, Any], name: str = "team", kind: str = "FineTuneProfile", **metadata: Any) -> Profile:
    raw = {"metadata": {"name": name, "namespace": "ml", "generation": 3, **metadata}, "spec": spec}
    return profile_of(raw, ProfileKind(kind))


def default(spec: dict[str, Any], name: str, kind: str, created: str = "2026-12-01T10:00:00Z") -> Profile:
    annotations = {"finetune.dev/is-default-profile": "true"}
    return profile(spec, name, kind, annotations=annotations, creationTimestamp=created)


def record(*profiles: Profile) -> ProfileStatus:
    found = record_of(profiles)
    assert isinstance(found, ProfileStatus)
    return found


def job(**sections: Any) -> dict[str, Any]:
    return {**MINIMAL, **{name: {**MINIMAL.get(name, {}), **section} for name, section in sections.items()}}


def run(own: dict[str, Any], *profiles: Profile) -> FineTuneJobSpec:
    return effective(compact_json(own), record(*profiles)).spec


def refused(own: dict[str, Any], *profiles: Profile) -> list[str]:
    return [str(problem) for problem in effective(compact_json(own), record(*profiles)).excess]


# what is merged


def test_sections_and_maps_are_merged_and_lists_and_references_replaced() -> None:
    lower = {
        "scheduling": {"nodeSelector": {"gpu": "h100", "zone": "a"}, "tolerations": [{"key": "a"}]},
        "model": {"tokenSecretRef": {"name": "hub", "key": "hf"}},
        "storage": {"endpoint": "https://s3", "region": "eu-west-1"},
    }
    upper = {
        "scheduling": {"nodeSelector": {"gpu": "a100"}, "tolerations": []},
        "model": {"tokenSecretRef": {"name": "mine"}},
        "storage": {"region": None, "checksums": "whenRequired"},
    }
    before = json.dumps([lower, upper])
    assert merged([lower, upper]) == {
        "scheduling": {"nodeSelector": {"gpu": "a100", "zone": "a"}, "tolerations": []},
        "model": {"tokenSecretRef": {"name": "mine"}},
        "storage": {"endpoint": "https://s3", "region": "eu-west-1", "checksums": "whenRequired"},
    }
    assert json.dumps([lower, upper]) == before
    assert origins([lower, upper]) == {
        "scheduling.nodeSelector.gpu": 1,
        "scheduling.nodeSelector.zone": 0,
        "scheduling.tolerations": 1,
        "model.tokenSecretRef": 1,
        "storage.endpoint": 0,
        "storage.region": 0,
        "storage.checksums": 1,
    }


@pytest.mark.parametrize(
    ("lower", "upper", "left"),
    [
        ({"training": {"maxSteps": 5}}, {"training": {"epochs": 1}}, {"training": {"epochs": 1}}),
        ({"training": {"epochs": 5}}, {"training": {"maxSteps": 1}}, {"training": {"maxSteps": 1}}),
        (
            {"tracking": {"mlflow": {"uri": "http://mlflow"}}},
            {"tracking": {"wandb": {"experiment": "mine"}}},
            {"tracking": {"wandb": {"experiment": "mine"}}},
        ),
        (
            {"training": {"batchSize": 16, "microBatchSize": 4}},
            {"training": {"batchSize": 6}},
            {"training": {"batchSize": 6}},
        ),
        (
            {"training": {"batchSize": 16, "microBatchSize": 4}},
            {"training": {"batchSize": 16}},
            {"training": {"batchSize": 16, "microBatchSize": 4}},
        ),
        (
            {"training": {"scheduler": "cosine", "minLearningRate": "1e-5"}},
            {"training": {"scheduler": "linear"}},
            {"training": {"scheduler": "linear"}},
        ),
        (
            {"model": {"cache": "pvc://cache"}},
            {"model": {"uri": "pvc://models/base"}},
            {"model": {"uri": "pvc://models/base"}},
        ),
    ],
)
def test_a_default_that_would_only_contradict_gives_way(lower: Any, upper: Any, left: Any) -> None:
    assert merged([lower, upper]) == left


# which profiles count


def test_order_is_cluster_default_namespace_default_named_profile_job() -> None:
    cluster = default({"lora": {"rank": 1, "alpha": 1}, "retry": {"limit": 1}}, "c", "ClusterFineTuneProfile")
    namespace = default({"lora": {"rank": 2, "alpha": 2}, "training": {"epochs": 2}}, "n", "FineTuneProfile")
    named = profile({"lora": {"rank": 3}, "training": {"epochs": 3}}, "mine")
    found = resolve([named, namespace, cluster], ProfileRef(name="mine"))
    assert isinstance(found, ProfileStatus)
    assert [str(source) for source in found.sources] == [
        "ClusterFineTuneProfile c", "FineTuneProfile n", "FineTuneProfile mine",
    ]  # fmt: skip
    assert (found.display, found.sources[2].generation) == ("c, n, mine", 3)
    spec = effective(compact_json(job(training={"epochs": 4})), found).spec
    assert (spec.retry.limit, spec.lora.alpha, spec.lora.rank, spec.training.epochs) == (1, 2, 3, 4)


def test_a_default_that_the_job_names_wins_over_the_other_default() -> None:
    cluster = default({}, "c", "ClusterFineTuneProfile")
    namespace = default({}, "n", "FineTuneProfile")
    chosen = choose([cluster, namespace], ProfileRef(kind=ProfileKind.CLUSTER, name="c"))
    assert chosen == (namespace, cluster)


def test_of_two_defaults_the_newest_counts_and_then_the_first_by_name() -> None:
    kind = "ClusterFineTuneProfile"
    old = default({}, "a", kind, "2026-01-01T00:00:00Z")
    new, twin = (default({}, name, kind, "2026-02-01T00:00:00Z") for name in ("c", "b"))
    assert choose([old, new, twin], None) == (twin,)
    assert choose([profile({}, "a", kind)], None) == ()
    assert resolve([], None) is None


def test_a_missing_profile_is_said_with_what_there_is() -> None:
    cluster = profile({}, "team", "ClusterFineTuneProfile")
    held = resolve([cluster, profile({}, "other")], ProfileRef(name="team"))
    assert isinstance(held, Held)
    assert held.reason == "ProfileNotFound"
    assert "FineTuneProfile team does not exist: create it" in held.message
    assert "there is a ClusterFineTuneProfile of that name" in held.message


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"lora": {"rank": 0}}, "FineTuneProfile team cannot be used: spec.lora.rank: should be greater"),
        ({"lora": {"newField": 1}}, 'unknown field "spec.lora.newField"; a profile has no such field'),
        ({"output": {"uri": "s3://a/b"}}, 'unknown field "spec.output"'),
        ({"suspend": True}, 'unknown field "spec.suspend"'),
        ({"model": {"trustRemoteCode": True}}, 'unknown field "spec.model.trustRemoteCode"'),
        ({"scheduling": {"env": [{"name": "LD_PRELOAD"}]}}, "spec.scheduling.env[0].name: this variable belongs"),
        ({"scheduling": {"env": [{"name": "A", "value": "x" * 1024}] * 33}}, "must have at most 32 items"),
        ({"storage": {"caBundle": "x" * MAX_PROFILE_BYTES}}, f"must have at most {MAX_PROFILE_BYTES} bytes as JSON"),
    ],
)
def test_an_invalid_profile_holds_its_jobs_by_its_name(spec: dict[str, Any], words: str) -> None:
    held = resolve([profile(spec)], ProfileRef(name="team"))
    assert isinstance(held, Held)
    assert held.reason == "ProfileInvalid"
    assert words in held.message


def test_profiles_that_supply_too_much_together_are_refused() -> None:
    def long(field: str) -> dict[str, Any]:
        return {"scheduling": {field: {f"example.com/{n}": "x" * 1000 for n in range(32)}}}

    env = {"scheduling": {"env": [{"name": f"A{n}", "value": "x" * 1024} for n in range(32)]}}
    held = record_of([profile(long("annotations")), profile(env, "more")])
    assert isinstance(held, Held)
    assert "FineTuneProfile team, FineTuneProfile more supply more than" in held.message


def test_a_merged_spec_that_is_invalid_names_the_profiles() -> None:
    own = job(training={"restarts": 2})
    assert parse_spec(own, own_values=True).training.restarts == 2
    with pytest.raises(SpecError, match=r"restarts.*FineTuneProfile team supplied what the job leaves out"):
        run(own, profile({"training": {"scheduler": "linear"}}))
    assert run(own, profile({"training": {"scheduler": "cosine_with_restarts"}})).training.restarts == 2


def test_the_digest_is_of_what_is_supplied_and_of_the_ceilings() -> None:
    one = record(profile({"lora": {"rank": 8, "alpha": 16}}))
    same = record(profile({"lora": {"alpha": 16, "rank": 8}}, "other", generation=9))
    assert one.digest == same.digest
    assert record(profile({"lora": {"rank": 8}})).digest != one.digest
    capped = profile({"lora": {"rank": 8, "alpha": 16}, "ceilings": {"retry": {"limit": 1}}})
    assert record(capped).digest != one.digest


# ceilings

CEILINGS = {
    "resources": {"gpus": 2, "nodes": 1, "cpu": "8", "memory": "64Gi", "ephemeralStorage": "100Gi"},
    "preflight": {"resources": {"cpu": "1", "memory": "2Gi"}},
    "retry": {"limit": 3},
    "activeDeadlineSeconds": 3600,
}


@pytest.mark.parametrize(
    ("own", "path"),
    [
        (job(resources={"gpus": 3}), "spec.resources.gpus"),
        (job(resources={"nodes": 2}), "spec.resources.nodes"),
        (job(resources={"cpu": "8001m", "cpuLimit": "9"}), "spec.resources.cpu"),
        (job(resources={"cpuLimit": "9"}), "spec.resources.cpuLimit"),
        (job(resources={"memory": "65Gi"}), "spec.resources.memory"),
        (job(resources={"ephemeralStorage": "1Ti"}), "spec.resources.ephemeralStorage"),
        (job(resources={"claims": [{"name": "a", "resourceClaimName": "b", "gpus": True}]}), "spec.resources.claims"),
        (job(preflight={"resources": {"memory": "3Gi"}}), "spec.preflight.resources.memory"),
        (job(retry={"limit": 4}), "spec.retry.limit"),
        ({**MINIMAL, "activeDeadlineSeconds": 3601}, "spec.activeDeadlineSeconds"),
    ],
)
def test_a_job_above_a_ceiling_is_refused_by_field_and_profile(own: dict[str, Any], path: str) -> None:
    said = refused(own, default({"ceilings": CEILINGS}, "standard", "ClusterFineTuneProfile"))
    assert said[0].startswith(f"{path}: is above the ceiling of ClusterFineTuneProfile standard, ")
    assert "lower it, or ask whoever keeps that profile (found " in said[0]


def test_the_lowest_ceiling_counts_whoever_has_it() -> None:
    cluster = default({"ceilings": {"resources": {"gpus": 2, "memory": "64Gi"}}}, "c", "ClusterFineTuneProfile")
    lower = profile({"ceilings": {"resources": {"gpus": 8, "memory": "32Gi"}}, "resources": {"gpus": 8}})
    found = {item.path: (item.value, item.source) for item in record(cluster, lower).ceilings}
    assert found["resources.gpus"] == ("2", "ClusterFineTuneProfile c")
    assert found["resources.memory"] == ("32Gi", "FineTuneProfile team")
    [said] = refused(MINIMAL, cluster, lower)
    assert said.startswith("spec.resources.gpus: is above the ceiling of ClusterFineTuneProfile c, 2; lower it")


def test_what_has_no_limit_gets_the_ceiling() -> None:
    spec = run(MINIMAL, profile({"ceilings": CEILINGS}))
    assert refused(MINIMAL, profile({"ceilings": CEILINGS})) == []
    assert (spec.resources.cpu, spec.resources.cpu_limit, spec.resources.memory) == ("1", "8", "64Gi")
    assert (spec.resources.ephemeral_storage, spec.active_deadline_seconds) == ("100Gi", 3600)
    assert (spec.preflight.resources.cpu_limit, spec.preflight.resources.memory) == ("1", "1Gi")


def test_what_acts_on_running_pods_is_held_to_the_ceiling() -> None:
    own = job(retry={"limit": 50}) | {"activeDeadlineSeconds": 999_999}
    spec = run(own, profile({"ceilings": CEILINGS}))
    assert (spec.retry.limit, spec.active_deadline_seconds) == (3, 3600)


# the CRDs


def test_what_a_profile_may_supply_has_no_default_in_the_crd_of_jobs() -> None:
    schema = spec_schema()
    for path in supplied_paths(FineTuneJobSpec):
        place = schema
        for key in path.split("."):
            place = place["properties"][key]
        assert "default" not in place, path
        assert place["description"].endswith(".")
    assert schema["properties"]["training"]["properties"]["seed"]["default"] == 42


def test_a_profile_may_set_what_the_job_may_and_no_more() -> None:
    own, jobs = profile_schema(), spec_schema()
    del own["properties"]["ceilings"]

    def compare(mine: Any, theirs: Any, path: str) -> None:
        for key, field in mine.get("properties", {}).items():
            other = theirs["properties"][key]
            for bound in ("type", "enum", "minimum", "maximum", "maxLength", "maxItems", "maxProperties", "items"):
                assert field.get(bound) == other.get(bound), f"{path}.{key}: {bound}"
            compare(field, other, f"{path}.{key}")

    compare(own, jobs, "spec")
    assert {"output", "method", "suspend", "runToken", "managedBy", "profileRef"} & own["properties"].keys() == set()
    assert [item["spec"]["scope"] for item in profile_definitions()] == ["Namespaced", "Cluster"]


# the shipped profile


@pytest.mark.parametrize("path", OF_2023)
def test_setting_is_in_the_documentation(path: str) -> None:
    value = OF_2023[path]
    text = ", ".join(value) if isinstance(value, list) else str(value).lower() if isinstance(value, bool) else value
    assert f"| `{path}` | {text}" in DOCUMENT


def test_settings_written_out_are_the_same_run() -> None:
    written = merged([LLAMA2["spec"], MINIMAL])
    resolved = run(MINIMAL, profile_of(LLAMA2, ProfileKind.CLUSTER))
    assert resolved == parse_spec(written)
    assert fingerprint(resolved.recipe(JobIdentity(name="a")), [], []) != fingerprint(
        parse_spec(MINIMAL).recipe(JobIdentity(name="a")), [], []
    )


def test_the_old_field_is_answered_with_the_new_one() -> None:
    with pytest.raises(SpecError, match=r"it is called profileRef here .a section: {kind: ClusterFineTuneProfile"):
        parse_spec({**MINIMAL, "profile": "llama2-2023"})
