"""A simulated cluster that sends webhooks while everything goes wrong."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from unimeter.control import WebhookRecord
from unimeter.engine.alert_log import alert_at
from unimeter.errors import BackpressureError
from unimeter.server.handlers import answer
from unimeter.sim.chance import Chance
from unimeter.sim.options import draw
from unimeter.sim.scheduler import MILLISECOND
from unimeter.sim.story import Story
from unimeter.sim.tuning import tuned
from unimeter.sim.world import World
from unimeter.wire.messages import WebhookPut

HOOK = WebhookRecord(
    "wh_aaaaaaaaaaaa", "http://hook/", "whsec_b25seSBmb3IgdGhpcyBleGFtcGxl", start=0
)


def ask_for_webhook(world: World) -> None:
    """Have whoever leads make the webhook, again and again until it is there."""
    for machine in world.machines.values():
        if machine.is_ready and machine.node.leads:
            if HOOK.id in machine.node.machine.administration.webhooks:
                return
            try:
                answer(machine.node, WebhookPut(HOOK), lambda response, index: None)
            except BackpressureError:
                pass
    world.scheduler.after(50 * MILLISECOND, ask_for_webhook, world)


def run(seed: int) -> World:
    chance = Chance(seed)
    options = draw("lite", chance.fork("options"))
    gc.disable()
    try:
        with tuned(options):
            world = World(chance, options, Story(False))
            world.scheduler.after(100 * MILLISECOND, ask_for_webhook, world)
            world.run()
    finally:
        gc.enable()
    return world


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize("seed", range(1, 9))
def test_every_alert_arrives_in_order_whatever_befalls_the_cluster(seed: int) -> None:
    world = run(seed)
    node: Any = next(iter(world.machines.values())).node
    assert HOOK.id in node.machine.administration.webhooks
    wanted = {at for at in range(1, node.last_alert + 1) if alert_at(node.machine, at)}
    assert set(world.receivers.taken.get(HOOK.url, {})) == wanted
    if wanted:
        assert world.reached["a webhook's message was taken"] > 0
