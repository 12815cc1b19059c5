"""What the operator would do with a spec: pods, GPUs, steps, money, and where the result goes."""

from collections.abc import Iterator

from finetune_operator.api import names
from finetune_operator.api.spec import FineTuneJobSpec
from finetune_operator.cli.views.duration import duration
from finetune_trainer.contract.recipe.training import DEFAULT_CHECKPOINT_MINUTES
from finetune_trainer.contract.serving import serving_warning


def plan_lines(name: str, spec: FineTuneJobSpec) -> list[str]:
    """The lines of the plan, in the order in which things would happen."""
    return [f"{f'{label}:':<13}{text}" for label, text in _facts(name, spec)]


def _facts(name: str, spec: FineTuneJobSpec) -> Iterator[tuple[str, str]]:
    yield "Model", f"{spec.model.uri}, {spec.model.quantization.type} weights"
    yield "Data", ", ".join(map(str, spec.dataset.places))
    if spec.preflight.enabled:
        child = names.child_name(name, names.PREFLIGHT_ROLE, 1)
        asked = spec.preflight.resources
        yield (
            "1. Preflight",
            f"Job {child}: cpu {asked.cpu}, memory {asked.memory}, no GPU",
        )
    child = names.child_name(name, names.TRAIN_ROLE, 1)
    yield f"{1 + spec.preflight.enabled}. Training", f"Job {child}: {_pods(spec)}"
    yield "Length", _length(spec)
    yield "Adapter", f"rank {spec.lora.rank} below {spec.output.uri}/{name}/"
    yield "Checkpoint", _checkpoints(spec)
    if (tracker := spec.tracking.tracker) is not None:
        yield "Tracker", f"metrics go to {tracker.uri}"
    if spec.suspend:
        yield "Suspended", f"no pod is made until kubectl finetune resume {name}"
    limit = "no limit" if spec.active_deadline_seconds is None else duration(spec.active_deadline_seconds)
    yield "Deadlines", f"a pod starts within {duration(spec.start_deadline_seconds)}; the job ends within {limit}"
    yield "Retries", f"{spec.retry.limit} after failures that may pass; disruptions are not counted"
    if warning := serving_warning(spec.lora):
        yield "Note", warning


def _pods(spec: FineTuneJobSpec) -> str:
    asked = spec.resources
    each = f"{asked.gpus} x {asked.gpu_resource}" if asked.gpus else "no GPU"
    total = asked.nodes * asked.gpus
    parts = [f"{asked.nodes} pod{'s' * (asked.nodes > 1)} with {each}, cpu {asked.cpu}, memory {asked.memory}"]
    if asked.nodes > 1:
        parts.append(f"{total} GPUs at once")
    return "; ".join(parts)


def _length(spec: FineTuneJobSpec) -> str:
    training = spec.training
    if training.max_steps is not None:
        return f"{training.max_steps:,} steps of {training.batch_size} rows"
    return f"{training.epochs} epochs in steps of {training.batch_size} rows; preflight counts the steps"


def _checkpoints(spec: FineTuneJobSpec) -> str:
    steps, minutes = spec.checkpoint.every_steps, spec.checkpoint.every_minutes
    if minutes is None and steps is None:
        minutes = DEFAULT_CHECKPOINT_MINUTES
    spans = [f"{steps:,} steps"] if steps is not None else []
    spans += [f"{minutes} minutes"] if minutes is not None else []
    place = spec.checkpoint.uri or spec.output.uri
    return f"every {' and every '.join(spans)}, the newest {spec.checkpoint.keep} are kept, below {place}"
