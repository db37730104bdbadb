"""HTTP clients of the tests: single requests, and many streams at once in one thread, with the time
of every read. Nothing is parsed while streams run: what a test measures is the server."""

import http.client
import json
import selectors
import socket
import threading
import time

HOST = "127.0.0.1"


class Answer:
    """A whole answer to a single request."""

    def __init__(self, status, headers, body, seconds):
        self.status, self.headers, self.body, self.seconds = status, headers, body, seconds

    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"Answer({self.status}, {self.body[:300]!r})"


def request(port, path, body=None, method=None, headers=None, timeout=60):
    """Raises OSError if the port refuses or the connection breaks."""
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout)
    begin = time.monotonic()
    try:
        sent = dict(headers or {})
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
            sent.setdefault("Content-Type", "application/json")
        connection.request(method or ("GET" if body is None else "POST"), path, body, sent)
        answer = connection.getresponse()
        data = answer.read()
        found = {k.lower(): v for k, v in answer.getheaders()}
        return Answer(answer.status, found, data, time.monotonic() - begin)
    except http.client.HTTPException as error:
        raise ConnectionError(f"broken answer: {error!r}") from error
    finally:
        connection.close()


def refuses(port):
    """True if nobody listens there."""
    with socket.socket() as probe:
        probe.settimeout(5)
        return probe.connect_ex((HOST, port)) != 0


def gauge(port, name, **labels):
    """The value of one metric; the sum if several samples have these labels. None if there is none."""
    total = None
    for line in request(port, "/metrics").body.decode().splitlines():
        if not line.startswith(name) or line[len(name):len(name) + 1] not in ("{", " "):
            continue
        if all(f'{k}="{v}"' in line for k, v in labels.items()):
            total = (total or 0.0) + float(line.rsplit(" ", 1)[1])
    return total


class Stream:
    """One streamed answer. Filled by Streams' thread; read it when done() or after wait()."""

    def __init__(self, port, raw_request):
        self.port = port
        self.started = time.monotonic()
        self.reads = []  # (time, bytes)
        self.events_seen = 0  # about: "data:" in what came so far
        self.error = None  # why the connection ended early
        self._request = raw_request
        self._end = threading.Event()
        self._parsed = None

    def done(self):
        return self._end.is_set()

    def wait(self, timeout=120):
        if not self._end.wait(timeout):
            raise AssertionError(f"a stream of port {self.port} is still open after {timeout} s, "
                                 f"{self.events_seen} events so far")
        return self

    def raw(self):
        return b"".join(data for _, data in self.reads)

    def _parse(self):
        if self._parsed is None:
            head, _, rest = self.raw().partition(b"\r\n\r\n")
            chunked = b"transfer-encoding: chunked" in head.lower()
            body, whole = dechunk(rest) if chunked else (rest, self.error is None)
            status = int(head.split(b" ", 2)[1]) if head.count(b" ") >= 2 else None
            events = [json.loads(part[6:]) for part in body.split(b"\n\n")
                      if part.startswith(b"data: {") and part.endswith(b"}")]
            self._parsed = (status, head.decode(), body, whole, events)
        return self._parsed

    status = property(lambda self: self._parse()[0])
    head = property(lambda self: self._parse()[1])
    body = property(lambda self: self._parse()[2])
    events = property(lambda self: self._parse()[4])

    @property
    def whole(self):
        """All of the answer came, and it ended as a stream should."""
        return self._parse()[3] and self.body.endswith(b"data: [DONE]\n\n")

    @property
    def choices(self):
        return [event["choices"][0] for event in self.events if event.get("choices")]

    @property
    def tokens(self):
        return [token for choice in self.choices for token in choice.get("token_ids") or []]

    @property
    def text(self):
        return "".join(c["text"] if "text" in c else c["delta"].get("content") or ""
                       for c in self.choices)

    @property
    def finish(self):
        reasons = [c["finish_reason"] for c in self.choices if c.get("finish_reason")]
        return reasons[-1] if reasons else None

    @property
    def stream_errors(self):
        return [event["error"] for event in self.events if "error" in event]

    def read_times(self):
        return [at for at, _ in self.reads]

    def longest_gap(self, since=0.0):
        """The longest wait between two reads that ended after `since`."""
        times = self.read_times()
        return max((b - a for a, b in zip(times, times[1:]) if b >= since), default=0.0)

    def describe(self):
        return (f"port {self.port}: status {self.status}, {len(self.tokens)} tokens, "
                f"finish {self.finish}, whole {self.whole}, error {self.error}, "
                f"stream errors {self.stream_errors}, end {self.raw()[-200:]!r}")


def dechunk(data):
    """The body of a chunked answer as far as it came, and whether its end did."""
    out, at = [], 0
    while True:
        line = data.find(b"\r\n", at)
        if line < 0:
            return b"".join(out), False
        size = int(data[at:line], 16)
        if size == 0:
            return b"".join(out), data[line + 2:line + 4] == b"\r\n"
        out.append(data[line + 2:line + 2 + size])
        at = line + 2 + size + 2


class Streams:
    """Runs streams in a background thread. A context manager: what still runs at the end is cut."""

    def __init__(self):
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake = socket.socketpair()
        self._wake_read.setblocking(False)
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)
        self._lock = threading.Lock()
        self._new, self._cut = [], []
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="streams", daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stopping = True
        self._wake.send(b"x")
        self._thread.join()

    def start(self, port, body, path="/v1/completions", headers="", read_rate=None):
        """`body`: the request's JSON, "stream" is added if it says nothing about it. `read_rate`:
        bytes a second; such a stream is read by a thread of its own through a small buffer."""
        payload = json.dumps({"stream": True, **body}).encode()
        raw = (f"POST {path} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
               f"Connection: close\r\n{headers}Content-Length: {len(payload)}\r\n\r\n")
        stream = Stream(port, raw.encode() + payload)
        stream.read_rate = read_rate
        with self._lock:
            self._new.append(stream)
        self._wake.send(b"x")
        return stream

    def cut(self, stream):
        """Closes the client's end without a word."""
        with self._lock:
            self._cut.append(stream)
        self._wake.send(b"x")

    def _run(self):
        while not self._stopping:
            for key, mask in self._selector.select(0.2):
                if key.data is None:
                    self._wake_read.recv(4096)
                elif mask & selectors.EVENT_WRITE:
                    self._send(key.fileobj, key.data)
                else:
                    self._receive(key.fileobj, key.data)
            self._take_orders()
        for key in list(self._selector.get_map().values()):
            if key.data is not None:
                self._finish(key.fileobj, key.data, "cut by the test's end")
        self._selector.close()
        self._wake.close()
        self._wake_read.close()

    def _take_orders(self):
        with self._lock:
            new, self._new = self._new, []
            cut, self._cut = self._cut, []
        for stream in new:
            sock = socket.socket()
            stream._socket = sock
            if stream.read_rate:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setblocking(False)
            sock.connect_ex((HOST, stream.port))
            self._selector.register(sock, selectors.EVENT_WRITE, stream)
        for stream in cut:
            if not stream.done():
                self._finish(stream._socket, stream, "cut by the test")

    def _send(self, sock, stream):
        try:
            sent = sock.send(stream._request)
        except BlockingIOError:
            return
        except OSError as error:
            self._finish(sock, stream, error)
            return
        stream._request = stream._request[sent:]
        if not stream._request:
            if stream.read_rate:
                self._selector.unregister(sock)
                threading.Thread(target=self._trickle, args=(sock, stream), daemon=True).start()
            else:
                self._selector.modify(sock, selectors.EVENT_READ, stream)

    def _receive(self, sock, stream):
        try:
            data = sock.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError as error:
            self._finish(sock, stream, error)
            return
        if not data:
            self._finish(sock, stream, None)
            return
        stream.reads.append((time.monotonic(), data))
        stream.events_seen += data.count(b"data:")

    def _trickle(self, sock, stream):
        sock.setblocking(True)
        sock.settimeout(0.5)
        pause = threading.Event()
        try:
            while not self._stopping:
                try:
                    data = sock.recv(1)
                except TimeoutError:
                    continue
                if not data:
                    break
                stream.reads.append((time.monotonic(), data))
                pause.wait(1.0 / stream.read_rate)
        except OSError as error:
            stream.error = error
        sock.close()
        stream._end.set()

    def _finish(self, sock, stream, error):
        try:
            self._selector.unregister(sock)
        except (KeyError, ValueError):
            pass
        sock.close()
        stream.error = error
        stream._end.set()
