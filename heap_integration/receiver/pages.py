"""Pages of Heap's Segment Sync on their way into the store."""

from __future__ import annotations

import logging

import orjson
from sqlalchemy import select

from heap_integration.heap.segment_sync import SegmentPage
from heap_integration.store import Store, insert_new
from heap_integration.store.tables import segment_pages

log = logging.getLogger(__name__)


def keep_page(store: Store, page: SegmentPage, received_at: float) -> bool:
    """Keep a page unless it is there already, and return whether it was new.

    Heap repeats a page when it isn't sure that it arrived. The first one stays whatever a later one
    of the same name says: it may have been passed on already.
    """
    row = {
        "sync_task_id": page.sync_task_id,
        "page_number": page.page_number,
        "total_pages": page.total_pages,
        "segment_id": page.segment_id,
        "segment_name": page.segment_name,
        "added": orjson.dumps(page.added).decode(),
        "removed": orjson.dumps(page.removed).decode(),
        "action": page.action,
    }
    columns = segment_pages.c
    same_name = (columns.sync_task_id == page.sync_task_id) & (columns.page_number == page.page_number)
    where = f"page {page.page_number} of {page.total_pages} of {page.sync_task_id}"
    with store.begin() as connection:
        if insert_new(connection, segment_pages, {**row, "received_at": received_at}):
            if page.without_id:
                log.warning("%s: %d users without an id are left out", where, page.without_id)
            return True
        kept = connection.execute(select(segment_pages).where(same_name)).mappings().one()
    if any(kept[name] != value for name, value in row.items()):
        log.warning("%s came again with other content: the first stays", where)
    return False
