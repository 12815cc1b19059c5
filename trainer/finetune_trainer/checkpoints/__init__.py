"""Checkpoints in storage: uploaded, fetched, pruned, removed. What is in one is train/trainer.py's.

A checkpoint is a folder of files whose manifest is written last. Every writer has folders of its own, so two pods of
one run never write to the same place, and whoever looks takes the newest that is whole.
"""

from finetune_trainer.checkpoints.checkpointer import Checkpointer
from finetune_trainer.checkpoints.store import CheckpointStore, FetchedCheckpoint

__all__ = ["CheckpointStore", "Checkpointer", "FetchedCheckpoint"]
