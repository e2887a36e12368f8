"""Runs tap-heap over all tables but one, in its own virtual environment, without its waits at the end of each table."""

import json
import sys

import tap_heap  # type: ignore[import-not-found]
from singer import metadata  # type: ignore[import-not-found]
from tap_heap import sync

bucket, left_out, state = sys.argv[1:]
take = sync.record_queue.get
sync.record_queue.get = lambda timeout: take(timeout=timeout / 100)
streams = tap_heap.discover_streams(bucket)
for stream in streams:
    chosen = metadata.to_map(stream["metadata"])
    for place in [(), *chosen]:
        metadata.write(chosen, place, "selected", stream["stream"] != left_out)
    stream["metadata"] = metadata.to_list(chosen)
tap_heap.do_sync({"bucket": bucket}, {"streams": streams}, json.loads(state))
