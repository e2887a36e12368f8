"""Pages of Heap's Segment Sync, as the receiver keeps them."""

from __future__ import annotations

from collections.abc import Collection

from heap_integration.heap.segment_sync import DRAIN, SYNC, SegmentPage
from heap_integration.receiver.pages import keep_page
from heap_integration.store import Store


def receive(
    store: Store,
    segment: int,
    task: str,
    at: float,
    *,
    added: Collection[str] = (),
    removed: Collection[str] = (),
    page: int = 1,
    pages: int = 1,
    drain: bool = False,
) -> None:
    """Keep one page that came ``at`` that moment."""
    keep_page(
        store,
        SegmentPage(
            action=DRAIN if drain else SYNC,
            id_token=None,
            segment_id=segment,
            segment_name=f"Segment {segment}",
            sync_task_id=task,
            page_number=page,
            total_pages=pages,
            added=tuple(added),
            removed=tuple(removed),
            without_id=0,
        ),
        at,
    )
