"""Models of the Hugging Face Hub, read-only, through huggingface_hub's own cache.

Without a network (HF_HUB_OFFLINE, or a mounted cache) a snapshot that the cache already holds is used as it is.
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.manifest import SourceObject
from finetune_trainer.contract.uri import Scheme, Uri, parse_uri
from finetune_trainer.storage.base import ByteCount, ObjectNotFoundError
from finetune_trainer.storage.partial import partial_file

DEFAULT_REVISION = "main"


class HubStore:
    """One Hub model at one revision. Objects are `hf://org/name/file`.

    Args:
        revision: branch, tag or commit; None is the main branch.
        token: access token of a gated model.
        cache: the Hub cache; None is huggingface_hub's own place.

    Attributes:
        commit: the commit that the revision meant, known after `stat`.
    """

    def __init__(self, *, revision: str | None = None, token: str | None = None, cache: Path | None = None) -> None:
        self._revision = revision
        self._token = token
        self._cache = cache
        self.commit: str | None = None

    def stat(self, uri: Uri) -> Sequence[SourceObject]:
        """See `Store.stat`. One request for the whole model; offline, the cached snapshot's files."""
        from huggingface_hub import HfApi, is_offline_mode

        repo, file = _split(uri)
        if is_offline_mode():
            found = self._cached(repo)
        else:
            with _reasons(repo, self._revision):
                info = HfApi(token=self._token).model_info(repo, revision=self._revision, files_metadata=True)
            self.commit = info.sha
            found = [
                SourceObject(
                    uri=f"hf://{repo}/{item.rfilename}",
                    size=item.size or 0,
                    etag=item.blob_id,
                    sha256=item.lfs.sha256 if item.lfs else None,
                )
                for item in info.siblings or []
            ]
        wanted = f"hf://{repo}/{file}".rstrip("/")
        found = [item for item in found if item.uri == wanted or item.uri.startswith(wanted + "/")]
        if not found:
            raise ObjectNotFoundError(f"{uri} at {self._at()}: the Hub's model has no such file")
        return sorted(found, key=lambda item: item.uri)

    def open(self, source: SourceObject) -> BinaryIO:
        """See `Store.open`. The file is fetched into the cache first."""
        return cast("BinaryIO", self._fetched(parse_uri(source.uri)).open("rb"))

    def download(self, source: SourceObject, target: Path, moved: ByteCount) -> None:
        """See `Store.download`."""
        with partial_file(target) as partial:
            shutil.copyfile(self._fetched(parse_uri(source.uri)), partial)
        moved(source.size)

    def read(self, uri: Uri) -> bytes | None:
        """See `Store.read`."""
        try:
            return self._fetched(uri).read_bytes()
        except ObjectNotFoundError:
            return None

    def upload(self, path: Path, uri: Uri, moved: ByteCount) -> None:  # noqa: ARG002 (the Protocol's)
        """Refused: the Hub is only read."""
        raise _read_only(uri)

    def create(self, uri: Uri, content: bytes) -> None:  # noqa: ARG002
        """Refused: the Hub is only read."""
        raise _read_only(uri)

    def replace(self, uri: Uri, content: bytes) -> None:  # noqa: ARG002
        """Refused: the Hub is only read."""
        raise _read_only(uri)

    def delete(self, uri: Uri) -> None:
        """Refused: the Hub is only read."""
        raise _read_only(uri)

    def _fetched(self, uri: Uri) -> Path:
        from huggingface_hub import hf_hub_download

        repo, file = _split(uri)
        revision = self.commit or self._revision
        with _reasons(repo, revision, file):
            return Path(hf_hub_download(repo, file, revision=revision, token=self._token, cache_dir=self._cache))

    def _cached(self, repo: str) -> list[SourceObject]:
        """The files of the cached snapshot. A blob is named by its git id or SHA-256, which is its identity."""
        from huggingface_hub import snapshot_download

        with _reasons(repo, self._revision):
            folder = snapshot_download(repo, revision=self._revision, cache_dir=self._cache, local_files_only=True)
        root = Path(folder)
        self.commit = root.name
        found = []
        for path in sorted(root.rglob("*")):
            if path.is_file():
                blob = path.resolve().name
                found.append(
                    SourceObject(
                        uri=f"hf://{repo}/{path.relative_to(root).as_posix()}",
                        size=path.stat().st_size,
                        etag=blob,
                        sha256=blob if len(blob) == 64 else None,
                    )
                )
        return found

    def _at(self) -> str:
        return self.commit or self._revision or DEFAULT_REVISION


def _split(uri: Uri) -> tuple[str, str]:
    """`org/name` and the file in it."""
    assert uri.scheme is Scheme.HF
    organisation, name, *rest = f"{uri.authority}/{uri.path}".rstrip("/").split("/")
    return f"{organisation}/{name}", "/".join(rest)


def _read_only(uri: Uri) -> TrainerError:
    return TrainerError(FailureReason.NOT_SUPPORTED, f"{uri}: the Hub is only read; put the output into s3://")


@contextmanager
def _reasons(repo: str, revision: str | None, file: str = "") -> Iterator[None]:
    """Turns huggingface_hub's errors into ends with a reason; the most specific class comes first."""
    from huggingface_hub import errors

    what = f"hf://{repo}" + (f"/{file}" if file else "") + f" at revision {revision or DEFAULT_REVISION}"
    try:
        yield
    except errors.GatedRepoError as error:
        raise TrainerError(
            FailureReason.MODEL_NOT_FOUND,
            f"{what} is gated: accept its licence on the Hub and give a token of that account in model.tokenSecretRef",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise TrainerError(FailureReason.MODEL_NOT_FOUND, f"{what}: the model has no such revision") from error
    except errors.RepositoryNotFoundError as error:
        raise TrainerError(
            FailureReason.MODEL_NOT_FOUND,
            f"{what}: there is no such model, or it is private and model.tokenSecretRef gives no access",
        ) from error
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError) as error:
        raise TrainerError(
            FailureReason.MODEL_NOT_FOUND,
            f"{what} is not in the local cache and the Hub is switched off or out of reach (HF_HUB_OFFLINE): mirror "
            "the model to s3:// or pvc:// and set model.uri to it",
        ) from error
    except errors.EntryNotFoundError as error:
        raise ObjectNotFoundError(f"{what}: there is no such file") from error
    except errors.HFValidationError as error:
        raise TrainerError(FailureReason.MODEL_NOT_FOUND, f"{what}: {error}") from error
    except (errors.HfHubHTTPError, OSError) as error:
        said = " ".join(str(error).split())[:200]
        raise TrainerError(
            FailureReason.STORAGE_UNAVAILABLE, f"{what}: the Hub does not answer ({type(error).__name__}: {said})"
        ) from error
