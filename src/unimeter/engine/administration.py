"""What administrators make, as replicated state: keys, webhooks, deliveries, the trail."""

from __future__ import annotations

from collections import deque

from unimeter import limits
from unimeter.control import AuditRecord, Delivery, WebhookRecord
from unimeter.keys import KeyRecord


class Administration:
    """The state that ADMIN entries change; it changes nowhere else."""

    def __init__(self) -> None:
        self.keys: dict[str, KeyRecord] = {}
        self.webhooks: dict[str, WebhookRecord] = {}
        self.deliveries: dict[str, Delivery] = {}
        self.audit: deque[AuditRecord] = deque(maxlen=limits.AUDIT_RECORDS_MAX)
        self.generation = 0  # +1 whenever a key is made or revoked
