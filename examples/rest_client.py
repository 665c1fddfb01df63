#!/usr/bin/env python3
"""Buys a stock some times, each exactly once, whatever fails meanwhile. Python 3.9 or newer, nothing else.

    python3 examples/rest_client.py http://127.0.0.1:8080 [http://127.0.0.1:8081 ...] --name GameStart --buys 10

What to take from it: choose a key before the first attempt, and send the same body with the same key until there is an answer
that says what became of it. 503, 504, 429 and broken connections are no such answer; everything else is. The attempts may go to
any frontend.
"""

import argparse
import http.client
import itertools
import json
import sys
import time
import urllib.error
import urllib.request
import uuid

# Above the exchange's own deadline of 5 s, so that its answer is seen and not our time-out.
TIMEOUT_S = 10
# How long one order is tried in all. Keys are kept for far longer (the newest 100,000 of them).
GIVE_UP_S = 60
# 429: too fast. 503: nothing was done. 504: it may have been done or not.
ASK_AGAIN = {429, 503, 504}


class Unanswered(Exception):
    """Nobody said in time what became of the request."""


def send(request):
    """The status, headers and JSON body of an answer."""
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            return answer.status, answer.headers, json.load(answer)
    except urllib.error.HTTPError as refused:  # An answer too: {"error": {"code": ..., "message": "..."}}
        return refused.code, refused.headers, json.load(refused)


def buy(frontends, name, quantity, key):
    """Buys once, however often it has to ask. Returns the order's number, whether it is a replay, and the attempts."""
    body = json.dumps({"name": name, "quantity": quantity, "type": "buy"}).encode()
    headers = {"Content-Type": "application/json", "Idempotency-Key": key}
    deadline = time.monotonic() + GIVE_UP_S
    for attempt, frontend in enumerate(itertools.cycle(frontends), start=1):
        pause_s = min(0.05 * 2 ** (attempt - 1), 1)
        try:
            status, told, answer = send(urllib.request.Request(f"{frontend}/orders", body, headers))
            if status == 200:
                return answer["data"]["transaction_number"], told.get("Idempotent-Replayed") == "true", attempt
            why = f'{status} {answer["error"]["message"]}'
            if status not in ASK_AGAIN:
                sys.exit(f"refused: {why}")
            pause_s = float(told.get("Retry-After", pause_s))
        except (OSError, http.client.HTTPException, ValueError) as broken:  # Refused, reset, timed out, cut off.
            why = repr(broken)
        if time.monotonic() + pause_s > deadline:
            raise Unanswered(f"after {attempt} attempts: {why}; ask again with the key {key}")
        print(f"  asking again with the same key: {why}", flush=True)
        time.sleep(pause_s)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("frontends", nargs="+", metavar="URL")
    parser.add_argument("--name", default="GameStart")
    parser.add_argument("--quantity", type=int, default=1)
    parser.add_argument("--buys", type=int, default=10)
    options = parser.parse_args()
    frontends = [url.rstrip("/") for url in options.frontends]
    for _ in range(options.buys):
        key = str(uuid.uuid4())
        number, _, attempts = buy(frontends, options.name, options.quantity, key)
        # As if the answer had been lost: the same request gets the same answer, and nothing is bought again.
        again, replayed, _ = buy(frontends, options.name, options.quantity, key)
        assert again == number and replayed, f"order {number} became {again}"
        print(f"order {number}: bought {options.quantity} {options.name} once, attempts: {attempts}", flush=True)


if __name__ == "__main__":
    main()
