"""A client of a rank's queue port with nothing but the standard library: the few protobuf messages of
common/wire/queue.proto that it needs are written and read by hand."""

import hashlib
import hmac
import os
import socket
import struct

from client import HOST

# Fields of ToRank and FromRank.
ANSWER, SUBMIT, CANCEL, LOAD_QUERY, DRAIN = range(1, 6)
CHALLENGE, ACCEPTED, TOKENS, LOAD, PROTOCOL_ERROR = range(1, 6)
RUNNING, STOP, LENGTH, CANCELLED, ERROR = range(5)


def secret_of(text):
    """How the programs make the cluster secret of FLOTILLA_CLUSTER_SECRET."""
    return hashlib.sha256(text.encode()).digest()


def varint(value):
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number, value):
    """int: varint; float: fixed32; bytes, str: length-delimited; list of int: packed."""
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, str):
        value = value.encode()
    elif isinstance(value, list):
        value = b"".join(varint(v) for v in value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def message(*fields):
    return b"".join(field(number, value) for number, value in fields)


def read_varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def parse(data):
    """{field number: [values]}: ints, 4 raw bytes, or bytes."""
    out, at = {}, 0
    while at < len(data):
        key, at = read_varint(data, at)
        if key & 7 == 0:
            value, at = read_varint(data, at)
        elif key & 7 == 5:
            value, at = data[at:at + 4], at + 4
        elif key & 7 == 2:
            size, at = read_varint(data, at)
            value, at = data[at:at + size], at + size
        else:
            raise ValueError(f"wire type {key & 7}")
        out.setdefault(key >> 3, []).append(value)
    return out


def packed(chunks):
    out = []
    for data in chunks:
        at = 0
        while at < len(data):
            value, at = read_varint(data, at)
            out.append(value)
    return out


class Batch:
    """One TokenBatch."""

    def __init__(self, fields):
        one = lambda number: fields.get(number, [0])[0]
        self.id, self.generation, self.first_index = one(1), one(2), one(3)
        self.tokens = packed(fields.get(4, []))
        self.logprobs = fields.get(5, [])  # raw: equal bytes are equal numbers
        self.cached_tokens, self.finish = one(7), one(8)
        self.error = fields.get(10, [b""])[0].decode()
        self.error_code = one(11)


class QueueClient:
    def __init__(self, port, secret, timeout=60, receive_buffer=None):
        self.socket = socket.socket()
        self.socket.settimeout(timeout)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect((HOST, port))
        self.buffer = b""
        challenge = parse(self.receive()[CHALLENGE][0])
        self.server_nonce = challenge[2][0]
        self.nonce = os.urandom(32)
        proof = self.proof(secret, b" client", self.server_nonce, self.nonce)
        self.send(ANSWER, message((1, self.nonce), (2, proof), (3, "test")))
        first = self.receive()
        if PROTOCOL_ERROR in first:
            self.close()
            raise PermissionError(first[PROTOCOL_ERROR][0].decode())
        accepted = parse(first[ACCEPTED][0])
        expected = self.proof(secret, b" server", self.nonce, self.server_nonce)
        if not hmac.compare_digest(accepted[1][0], expected):
            raise PermissionError("the rank does not know the secret")
        self.rank = accepted.get(2, [0])[0]
        self.model_digest = accepted.get(4, [b""])[0].decode()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    @staticmethod
    def proof(secret, side, first, second):
        return hmac.new(secret, b"flotilla queue" + side + first + second, "sha256").digest()

    def close(self):
        self.socket.close()

    def send(self, kind, payload=b""):
        frame = field(kind, payload)
        self.socket.sendall(struct.pack("<I", len(frame)) + frame)

    def receive(self):
        """The next FromRank as {field: [values]}. ConnectionError at the end."""
        while True:
            if len(self.buffer) >= 4:
                size = struct.unpack("<I", self.buffer[:4])[0]
                if len(self.buffer) >= 4 + size:
                    frame, self.buffer = self.buffer[4:4 + size], self.buffer[4 + size:]
                    return parse(frame)
            data = self.socket.recv(1 << 16)
            if not data:
                raise ConnectionError("the rank closed the connection")
            self.buffer += data

    def submit(self, id, prompt, max_tokens, seed=0, temperature=0.0, generation=1, produced=(),
               logprobs=-1, deadline_ms=0):
        sampling = message((1, temperature), (2, 1.0), (7, 1.0), (11, max_tokens), (13, 1),
                           (14, logprobs), (15, -1))
        self.send(SUBMIT, message((1, id), (2, generation), (3, list(prompt)), (4, list(produced)),
                                  (5, sampling), (6, seed), (8, deadline_ms),
                                  (9, f"queue-test-{id}")))

    def cancel(self, id, generation=1):
        self.send(CANCEL, message((1, id), (2, generation)))

    def batch(self):
        return Batch(parse(self.receive()[TOKENS][0]))

    def collect(self, *ids):
        """{id: (tokens, last batch)} when all have ended; batches must join without a gap."""
        tokens, ended = {id: [] for id in ids}, {}
        first = {}
        while len(ended) < len(ids):
            batch = self.batch()
            first.setdefault(batch.id, batch.first_index)
            expected = first[batch.id] + len(tokens[batch.id])
            if batch.tokens and batch.first_index != expected:
                raise AssertionError(f"batch of {batch.id} begins at {batch.first_index}, "
                                     f"expected {expected}")
            tokens[batch.id] += batch.tokens
            if batch.finish != RUNNING:
                ended[batch.id] = batch
        return {id: (tokens[id], ended[id]) for id in ids}

    def load(self):
        """(running, waiting, draining). Only when no tokens are under way."""
        self.send(LOAD_QUERY)
        report = parse(self.receive()[LOAD][0])
        one = lambda number: report.get(number, [0])[0]
        return one(1), one(2), bool(one(6))
