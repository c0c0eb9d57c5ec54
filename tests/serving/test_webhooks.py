"""Only what Replicate signed is believed."""

import asyncio
import base64
import hashlib
import hmac
import json
import socket
import time

import httpx2
import pytest

from serving.client.webhooks import Receiver, verify
from training.errors import ServerError

# The example of https://github.com/standard-webhooks/standard-webhooks (and of Svix's documentation).
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ID, TIMESTAMP, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
HEADERS = {"webhook-id": ID, "webhook-timestamp": str(TIMESTAMP), "webhook-signature": SIGNATURE}


def signed(body: bytes, timestamp: int, secret: str = SECRET) -> dict[str, str]:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.new(key, f"{ID}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return HEADERS | {
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def announced(url: str, length: int) -> bytes:
    """The answer to the headers of a body of so many bytes."""
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as connection:
        connection.sendall(f"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: {length}\r\n\r\n".encode())
        return connection.recv(100)


def test_the_published_example_is_right() -> None:
    verify(SECRET, HEADERS, BODY, now=TIMESTAMP)


def test_headers_in_any_case_and_one_right_signature_of_several() -> None:
    headers = {name.title(): value for name, value in HEADERS.items()}
    verify(SECRET, headers | {"Webhook-Signature": f"v1,AAAA v2,{SIGNATURE} {SIGNATURE}"}, BODY, now=TIMESTAMP + 200)


@pytest.mark.parametrize(
    ("changed", "body", "now", "message"),
    [
        ({}, BODY + b" ", TIMESTAMP, "signature is not"),
        ({"webhook-id": "msg_other"}, BODY, TIMESTAMP, "signature is not"),
        ({"webhook-timestamp": str(TIMESTAMP + 1)}, BODY, TIMESTAMP, "signature is not"),
        ({"webhook-signature": SIGNATURE.replace("v1,", "v2,")}, BODY, TIMESTAMP, "signature is not"),
        ({"webhook-signature": "é"}, BODY, TIMESTAMP, "signature is not"),
        ({"webhook-signature": ""}, BODY, TIMESTAMP, "not a signed webhook"),
        ({"webhook-timestamp": "soon"}, BODY, TIMESTAMP, "no number"),
        ({}, BODY, TIMESTAMP + 301, "signed 301 s away"),
        ({}, BODY, TIMESTAMP - 301, "signed 301 s away"),
    ],
)
def test_anything_else_is_refused(changed: dict[str, str], body: bytes, now: float, message: str) -> None:
    with pytest.raises(ServerError, match=message):
        verify(SECRET, HEADERS | changed, body, now=now)


def test_a_secret_that_is_none_is_refused() -> None:
    with pytest.raises(ServerError, match="whsec_ and base64"):
        verify("r8_token", HEADERS, BODY, now=TIMESTAMP)


def test_a_receiver_takes_the_signed_end_of_its_prediction_and_nothing_else() -> None:
    def told(id: str, status: str) -> bytes:
        return json.dumps({"id": id, "status": status, "output": ["ou", "i"]}).encode()

    async def go() -> list[int]:
        statuses = []
        async with Receiver(SECRET, 0) as receiver, httpx2.AsyncClient(trust_env=False, verify=False) as http:
            wait = asyncio.create_task(receiver.ended("mine"))

            async def send(body: bytes, headers: dict[str, str]) -> None:
                statuses.append((await http.post(receiver.url, content=body, headers=headers)).status_code)

            now = int(time.time())
            await send(told("mine", "succeeded"), {})
            await send(told("mine", "succeeded"), signed(told("mine", "failed"), now))
            await send(told("mine", "succeeded"), signed(told("mine", "succeeded"), now - 3600))
            await send(told("other", "succeeded"), signed(told("other", "succeeded"), now))
            await send(told("mine", "processing"), signed(told("mine", "processing"), now))
            await send(b"no json", signed(b"no json", now))
            assert b"413" in await asyncio.to_thread(announced, receiver.url, 2**20 + 1)
            assert not wait.done()
            await send(told("mine", "succeeded"), signed(told("mine", "succeeded"), now))
            assert (await wait).output == "oui"
        return statuses

    assert asyncio.run(go()) == [401, 401, 401, 200, 200, 200, 200]
