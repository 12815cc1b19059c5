"""What all attacks share, and a cluster that counts."""

from dataclasses import dataclass

from component.plane import Plane
from finetune_operator.control.progress_cluster import KubeProgressCluster
from finetune_operator.progress.ports import PodIdentity


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What all attacks share.

    Attributes:
        attacker: the namespace where the tenant may edit.
        victim: the namespace that the tenant may view.
        user: the tenant, as the API server knows it.
        kubeconfig: path of the tenant's kubeconfig.
    """

    plane: Plane
    attacker: str
    victim: str
    user: str
    kubeconfig: str


class CountingCluster(KubeProgressCluster):
    """Counts the TokenReviews."""

    reviews = 0

    async def review(self, token: str, audience: str) -> PodIdentity | None:
        self.reviews += 1
        return await super().review(token, audience)
