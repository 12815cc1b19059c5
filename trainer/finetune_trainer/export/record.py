"""Writes the record of a run into the adapter's folder: model card, loss chart, report, TensorBoard event file.

These files contain times and rates, so they differ between two equal runs. The adapter's own files are equal byte for
byte.
"""

from pathlib import Path

from finetune_trainer.export.card import CHART_NAME, model_card
from finetune_trainer.export.chart import standalone
from finetune_trainer.export.facts import RunFacts
from finetune_trainer.export.report_page import loss_chart, report_page
from finetune_trainer.export.tfevents import event_file

CARD_NAME, REPORT_NAME, EVENTS_FOLDER = "README.md", "report.html", "runs"


def write_record(facts: RunFacts, folder: Path) -> None:
    """Writes the record into the folder. Replaces an existing model card.

    Raises:
        OSError: a file cannot be written.
    """
    _write(folder / CARD_NAME, model_card(facts))
    _write(folder / REPORT_NAME, report_page(facts))
    if facts.history:
        _write(folder / CHART_NAME, standalone(loss_chart(facts.history)))
    job, began = facts.recipe.job, facts.created.timestamp()
    # TensorBoard names a run by its folder, and reads only files with "tfevents" in their name.
    events = folder / EVENTS_FOLDER / f"{job.name}-{job.attempt}"
    events.mkdir(parents=True, exist_ok=True)
    file = events / f"events.out.tfevents.{int(began)}.{facts.fingerprint[:12]}.0"
    file.write_bytes(event_file(facts.history, began))


def _write(file: Path, text: str) -> None:
    """Writes a text as UTF-8. A lone surrogate, which data may contain, becomes a question mark."""
    file.write_bytes(text.encode("utf-8", "replace"))
