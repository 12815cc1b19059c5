"""Uploads, downloads, prunes and removes checkpoints in storage. train/trainer.py decides what a checkpoint contains.

A checkpoint is a folder of files whose manifest is written last. Every writer has its own folders, so two pods of one
run never write to the same folder. A reader takes the newest complete checkpoint of any writer.
"""

from finetune_trainer.checkpoints.checkpointer import Checkpointer
from finetune_trainer.checkpoints.store import CheckpointStore, FetchedCheckpoint

__all__ = ["CheckpointStore", "Checkpointer", "FetchedCheckpoint"]
