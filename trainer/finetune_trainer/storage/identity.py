"""Credentials of the pod's own identity: the SDK's credential chain, with retries.

On a new node, a credential agent (EKS Pod Identity, kube2iam and others) may start later than the pod. The SDK tries an
agent three times within three seconds. It tries an agent at the address of EC2's metadata service only once.
"""

from collections.abc import Mapping
from dataclasses import replace

import boto3
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004 (botocore's name)
    CredentialRetrievalError,
    HTTPClientError,
)

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.storage.retry import RetryPolicy
from finetune_trainer.storage.s3_errors import error_code, http_status, in_words

_CONTAINER_FULL, _CONTAINER_RELATIVE = "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"
_ROLE, _CLUSTER = "AWS_ROLE_ARN", "KUBERNETES_SERVICE_HOST"
_UNNAMED_SECONDS = 10.0
"""Deadline when the environment names no agent. Usually there is no agent and storage.secretRef is missing."""
_TRANSIENT_CODES = {"IDPCommunicationError", "Throttling", "ThrottlingException", "RequestThrottled"}
"""Error codes of the token service after which a retry may succeed."""


class NoCredentialsFoundError(TrainerError):
    """The credential chain found no credentials. An agent that is still starting may give some later."""


def agent_of(environment: Mapping[str, str]) -> str | None:
    """Returns the words for the agent or token service that the environment names, or None when it names none."""
    if address := environment.get(_CONTAINER_FULL) or environment.get(_CONTAINER_RELATIVE):
        return f"the agent at {address}"
    if role := environment.get(_ROLE):
        return f"the token service for {role}"
    return None


def obtain(environment: Mapping[str, str], retry: RetryPolicy) -> boto3.Session:
    """Returns a session that has credentials.

    Args:
        environment: the process's variables, which the SDK reads too.
        retry: the policy with an agent that the environment names. In a pod without a named agent, its deadline is at
            most 10 s. Outside a cluster there is no retry.

    Raises:
        TrainerError: STORAGE_UNAVAILABLE when an agent does not answer, or answers with an error that may pass.
            STORAGE_ACCESS_DENIED when there are no credentials, or the token service refuses the identity.
    """
    agent = agent_of(environment)
    if agent is None:
        retry = replace(retry, seconds=min(retry.seconds, _UNNAMED_SECONDS) if _CLUSTER in environment else 0)
    try:
        return retry.call(lambda: _ask(agent))
    except NoCredentialsFoundError as error:
        raise TrainerError(FailureReason.STORAGE_ACCESS_DENIED, error.message) from error


def _ask(agent: str | None) -> boto3.Session:
    source = agent or "the SDK's chain"
    session = boto3.Session()  # A new one for each try: a session does not search again for missing credentials.
    try:
        credentials = session.get_credentials()
        if credentials is not None:
            credentials.get_frozen_credentials()
            return session
    except ClientError as error:
        transient = error_code(error) in _TRANSIENT_CODES or http_status(error) >= 500
        raise _not_obtained(source, error, transient=transient) from error
    except (ConnectionError, HTTPClientError) as error:
        raise _not_obtained(source, error, transient=True) from error
    except (CredentialRetrievalError, KeyError) as error:
        raise _not_obtained(source, error, transient=agent is not None) from error
    except (BotoCoreError, OSError, ValueError) as error:
        raise _not_obtained(source, error, transient=False) from error
    raise NoCredentialsFoundError(
        FailureReason.STORAGE_UNAVAILABLE,
        "no credentials were found; set storage.secretRef, or give the pod's ServiceAccount an identity",
    )


def _not_obtained(source: str, error: Exception, *, transient: bool) -> TrainerError:
    reason = FailureReason.STORAGE_UNAVAILABLE if transient else FailureReason.STORAGE_ACCESS_DENIED
    return TrainerError(reason, f"the identity was not obtained from {source}: {in_words(error)}")
