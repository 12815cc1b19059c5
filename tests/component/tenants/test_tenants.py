"""A tenant who may edit one namespace and view another attacks, with its own kubeconfig: a table.

Every attack is refused, and every attack works when the defences of its row are missing.
"""

from contextlib import AsyncExitStack

import pytest

from component.tenants import children, reports, rights, specs
from component.tenants.attack import Attack
from component.tenants.site import Site

ATTACKS: dict[str, Attack] = {**children.ATTACKS, **reports.ATTACKS, **specs.ATTACKS, **rights.ATTACKS}
STRICT = [name for name, attack in ATTACKS.items() if not attack.lax_crd]
LAX = [name for name, attack in ATTACKS.items() if attack.lax_crd]


@pytest.mark.parametrize("name", ATTACKS)
async def test_attack_is_refused(site: Site, name: str) -> None:
    assert not await ATTACKS[name].act(site)


async def _works(site: Site, attack: Attack) -> bool:
    async with AsyncExitStack() as stack:
        for defence in attack.without:
            await stack.enter_async_context(defence(site))
        done = await attack.act(site)
        await site.close()  # while the defences are out
        return done


@pytest.mark.parametrize("name", STRICT)
async def test_attack_works_without_its_defence(site: Site, name: str) -> None:
    assert await _works(site, ATTACKS[name])


@pytest.mark.parametrize("name", LAX)
@pytest.mark.usefixtures("lax_crd")
async def test_attack_works_without_its_defence_and_the_rules_of_the_crd(site: Site, name: str) -> None:
    assert await _works(site, ATTACKS[name])
