"""Moves a job's pointer to its newest run. The pointer never moves to an older run."""

from finetune_trainer.contract.latest import Latest
from finetune_trainer.contract.uri import Uri
from finetune_trainer.storage.base import AlreadyExistsError, ObjectChangedError, Store

_TRIES = 5


def point_to(latest: Latest, store: Store, uri: Uri) -> bool:
    """Writes the pointer unless it names a newer run. Returns True when this call wrote the pointer.

    When another writer has changed the pointer, it is read again, up to five times. So the newest run wins, if the
    server supports conditional writes.

    Raises:
        TrainerError: the store's error.
    """
    content = (latest.to_json() + "\n").encode()
    for _ in range(_TRIES):
        current = store.read(uri)
        known = Latest.read(current) if current is not None else None
        if known is not None and known.created > latest.created:
            return False
        try:
            if current is None:
                store.create(uri, content)
            else:
                store.replace(uri, content, current)
        except (AlreadyExistsError, ObjectChangedError):
            continue
        return True
    return False
