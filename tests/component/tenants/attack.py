"""An attack of the table."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from component.tenants.defences import Defence
from component.tenants.site import Site

Act = Callable[[Site], Awaitable[bool]]
"""What the tenant does. Returns whether the harm is done."""


@dataclass(frozen=True, kw_only=True)
class Attack:
    """One row.

    Attributes:
        act: the attack, with the tenant's rights.
        without: the defences against it. Without all of them it must work.
        lax_crd: whether the rules in the CRD are one of them.
    """

    act: Act
    without: tuple[Defence, ...]
    lax_crd: bool = False


class Table(dict[str, Attack]):
    """Attacks by name."""

    def row(self, name: str, *without: Defence, lax_crd: bool = False) -> Callable[[Act], Act]:
        """Adds the decorated function."""

        def add(act: Act) -> Act:
            assert name not in self, name
            self[name] = Attack(act=act, without=without, lax_crd=lax_crd)
            return act

        return add
