"""Makes the calls of standard input through Segment's or Customer.io's client, within its virtual environment."""

import importlib
import json
import sys
from datetime import datetime

module, host, write_key = sys.argv[1:]
Client = importlib.import_module(f"{module}.client").Client
refusals: list[str] = []
clients = [
    Client(write_key, host=host, gzip=gzip, upload_size=50, on_error=lambda error, _: refusals.append(str(error)))
    for gzip in (False, True)
]
for number, call in enumerate(json.load(sys.stdin)):
    kind = call.pop("type")
    if "timestamp" in call:
        call["timestamp"] = datetime.fromisoformat(call["timestamp"])
    getattr(clients[number % 2], kind)(**call)
for client in clients:
    client.shutdown()
print(json.dumps(refusals))
