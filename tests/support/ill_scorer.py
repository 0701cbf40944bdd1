"""A scorer behind HTTP that answers late at times, and garbage at times: `python -m tests.support.ill_scorer PORT`.

A score is minus the size of the PNG in kB, and so never 0.
"""

import base64
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count

LATE = 8.0
"""Seconds."""
_number = count(1)


class Handler(BaseHTTPRequestHandler):
    """Answers every fifth request late, and every seventh with what is no answer."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        number = next(_number)
        if number % 5 == 0:
            time.sleep(LATE)
        scores = [-len(base64.b64decode(image)) / 1000 for image in body["images"]]
        answer = b"<html>busy</html>" if number % 7 == 0 else json.dumps({"scores": scores}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
