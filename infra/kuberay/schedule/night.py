"""One night's run as a RayJob: make it, or find it made, and wait until it has ended, well or not.

It is named after the day, so nothing that runs is ever replaced, and a night that is tried again finds its own. It
belongs to the Job of the CronJob that made it, and goes when Kubernetes clears that away. It takes the standard library
and PyYAML, which the image has.

Exit codes: 0 it is complete; 1 it failed, at once and not when the waiting would have ended.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def main() -> int:
    """See the module."""
    day = os.environ.get("DAY") or datetime.now(UTC).strftime("%Y%m%d")
    name, namespace = f"{os.environ['NAME']}-{day}", os.environ["NAMESPACE"]
    place = f"/apis/ray.io/v1/namespaces/{namespace}/rayjobs"
    job = yaml.safe_load(Path(os.environ["RAYJOB"]).read_text())
    job["metadata"] = {"name": name, "namespace": namespace, "ownerReferences": [owner()]}
    job["spec"]["entrypoint"] = os.environ["COMMAND"].replace("DAY", day)
    try:
        ask("POST", place, job)
        print(f"made {name}: {job['spec']['entrypoint']}", flush=True)
    except urllib.error.HTTPError as error:
        if error.code != 409:
            raise
        print(f"{name} is there already", flush=True)
    said = ""
    while True:
        status = ask("GET", f"{place}/{name}").get("status") or {}
        state = status.get("jobDeploymentStatus") or "waiting"
        if (now := f"{name}: {state} {status.get('message') or ''}".strip()) != said:
            print(said := now, flush=True)
        if state in ("Complete", "Failed"):
            return int(state == "Failed" or status.get("jobStatus") in ("FAILED", "STOPPED"))
        time.sleep(float(os.environ.get("EVERY", "30")))


def owner() -> dict[str, Any]:
    """The Job that this pod is of."""
    return {"apiVersion": "batch/v1", "kind": "Job", "name": os.environ["JOB_NAME"], "uid": os.environ["JOB_UID"]}


def ask(method: str, path: str, body: Any = None) -> Any:
    """A request to the Kubernetes API; tried again for some minutes while it does not answer."""
    token, authority = ACCOUNT / "token", ACCOUNT / "ca.crt"
    address = os.environ.get("KUBERNETES", "https://kubernetes.default.svc")
    request = urllib.request.Request(f"{address}{path}", method=method, data=body and json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    if token.is_file():
        request.add_header("Authorization", f"Bearer {token.read_text()}")
    context = ssl.create_default_context(cafile=str(authority)) if authority.is_file() else None
    for tries_left in range(20, -1, -1):
        try:
            with urllib.request.urlopen(request, timeout=30, context=context) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code < 500 or not tries_left:
                raise
        except urllib.error.URLError:
            if not tries_left:
                raise
        time.sleep(float(os.environ.get("EVERY", "30")) / 2)
    raise AssertionError


if __name__ == "__main__":
    sys.exit(main())
