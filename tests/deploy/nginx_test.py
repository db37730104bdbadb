#!/usr/bin/env python3
"""deploy/nginx in front of scripted ranks: what its comments claim, against a running nginx. Exit code 77 without nginx."""
import contextlib
import http.client
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NGINX = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
PATIENCE = 20  # seconds until a wait counts as a failure


def chunk(text):
    return b"%x\r\n%s\r\n" % (len(text), text)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


class Rank:
    """Accepts connections; hands each request to `answer(connection)` of the test, in a thread of its own."""

    def __init__(self, answer):
        self.answer = answer
        self.bodies = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            connection.settimeout(PATIENCE)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with connection, contextlib.suppress(OSError):
            reader = connection.makefile("rb")
            while reader.readline():
                length = 0
                while (line := reader.readline().strip()):
                    name, value = line.split(b":", 1)
                    if name.lower() == b"content-length":
                        length = int(value)
                self.bodies.append(reader.read(length))
                if self.answer(connection) == "close":
                    return

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def whole(text, status="200 OK"):
    reply = b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(text), text)
    return lambda connection: connection.sendall(reply)


class Nginx:
    def __init__(self, ranks):
        self.dir = tempfile.mkdtemp(prefix="flotilla-nginx-")
        os.chmod(self.dir, 0o755)  # started by root, its workers are somebody else
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        subprocess.run([f"{ROOT}/deploy/nginx/instantiate", self.dir, str(self.port), *map(str, ranks)], check=True)
        self.process = subprocess.Popen(
            [NGINX, "-p", self.dir, "-c", "nginx.conf", "-e", "error.log", "-g", "daemon off;"])
        for _ in range(PATIENCE * 100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            if self.process.poll() is not None:
                break
            threading.Event().wait(0.01)
        with open(f"{self.dir}/error.log") as log:
            raise RuntimeError("nginx does not listen: " + log.read())

    def close(self):
        self.process.terminate()
        self.process.wait(PATIENCE)
        shutil.rmtree(self.dir)


class NginxTest(unittest.TestCase):
    def start(self, *answers):
        """Ranks with these answers behind a fresh nginx."""
        ranks = [Rank(answer) for answer in answers]
        for rank in ranks:
            self.addCleanup(rank.close)
        self.front(*(rank.port for rank in ranks))
        return ranks

    def front(self, *ports):
        self.nginx = Nginx(ports)
        self.addCleanup(self.nginx.close)

    def post(self, body=b"{}", path="/v1/chat/completions"):
        connection = http.client.HTTPConnection("127.0.0.1", self.nginx.port, timeout=PATIENCE)
        self.addCleanup(connection.close)
        connection.request("POST", path, body)
        return connection.getresponse()

    def closed_port(self):
        with socket.create_server(("127.0.0.1", 0)) as free:
            return free.getsockname()[1]

    def test_the_files_as_they_are_are_valid(self):
        with tempfile.TemporaryDirectory() as folder:
            for name in ("nginx.conf", "flotilla.conf"):
                shutil.copy(f"{ROOT}/deploy/nginx/{name}", folder)
            result = subprocess.run([NGINX, "-t", "-p", folder, "-c", "nginx.conf", "-e", "error.log"],
                                    capture_output=True, text=True)
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertNotIn("[warn]", result.stderr.replace('the "user" directive', ""))

    def test_tokens_go_out_as_they_come(self):
        seen = threading.Event()

        def answer(connection):
            connection.sendall(HEAD + chunk(b"data: one\n\n"))
            if seen.wait(PATIENCE):  # the rest only when the client has the first part
                connection.sendall(chunk(b"data: two\n\n") + chunk(b""))

        self.start(answer)
        response = self.post()
        self.assertEqual(response.readline(), b"data: one\n")
        seen.set()
        self.assertEqual(response.read(), b"\ndata: two\n\n")

    def test_a_refused_connection_is_tried_elsewhere(self):
        rank = Rank(whole(b"answer"))
        self.addCleanup(rank.close)
        self.front(self.closed_port(), rank.port)
        for _ in range(4):
            self.assertEqual(self.post().read(), b"answer")

    def test_a_503_is_tried_elsewhere(self):
        draining, serving = self.start(whole(b"draining", "503 Service Unavailable"), whole(b"answer"))
        for _ in range(4):
            response = self.post(b"the request")
            self.assertEqual((response.status, response.read()), (200, b"answer"))
        self.assertEqual(set(serving.bodies), {b"the request"})
        self.assertLessEqual(len(draining.bodies), 1)  # then it is left alone for a while

    def test_a_503_of_all_ranks_reaches_the_client(self):
        self.start(whole(b"draining", "503 Service Unavailable"), whole(b"draining", "503 Service Unavailable"))
        response = self.post()
        self.assertEqual((response.status, response.read()), (503, b"draining"))

    def test_a_rank_that_dies_before_the_first_byte_is_replaced(self):
        _, serving = self.start(lambda connection: "close", whole(b"answer"))
        for _ in range(4):
            self.assertEqual(self.post(b"the request").read(), b"answer")
        self.assertEqual(serving.bodies, [b"the request"] * 4)

    def test_a_request_is_tried_twice_at_most(self):
        ranks = self.start(*[lambda connection: "close"] * 3)
        self.assertEqual(self.post().status, 502)
        self.assertEqual(sum(len(rank.bodies) for rank in ranks), 2)

    def test_an_answer_that_began_is_never_begun_again(self):
        def dies(connection):
            connection.sendall(HEAD + chunk(b"data: one\n\n"))
            return "close"

        ranks = self.start(dies, dies)
        with self.assertRaises(http.client.IncompleteRead):
            self.post().read()
        self.assertEqual(sum(len(rank.bodies) for rank in ranks), 1)

    def test_refusals_for_the_client_pass(self):
        ranks = self.start(*[whole(b"busy", "429 Too Many Requests")] * 2)
        response = self.post()
        self.assertEqual((response.status, response.read()), (429, b"busy"))
        self.assertEqual(sum(len(rank.bodies) for rank in ranks), 1)

    def test_the_rank_with_the_fewest_running_answers_is_next(self):
        done = threading.Event()
        self.addCleanup(done.set)

        def busy(connection):
            connection.sendall(HEAD + chunk(b"data: one\n\n"))
            done.wait(PATIENCE)

        ranks = self.start(busy, busy)
        responses = [self.post() for _ in range(6)]  # each waits for the head of its answer
        self.assertEqual(len(responses), 6)
        self.assertEqual([len(rank.bodies) for rank in ranks], [3, 3])

    def test_large_bodies_pass_up_to_the_servers_own_limit(self):
        (rank,) = self.start(whole(b"answer"))
        body = os.urandom(31 << 20)
        self.assertEqual(self.post(body).status, 200)
        self.assertEqual(rank.bodies, [body])
        with contextlib.suppress(OSError):  # nginx may close before all is sent
            self.assertEqual(self.post(bytes(33 << 20)).status, 413)
        self.assertEqual(len(rank.bodies), 1)

    def test_a_gone_client_is_gone_for_the_rank(self):
        noticed = threading.Event()

        def answer(connection):
            connection.sendall(HEAD + chunk(b"data: one\n\n"))
            if connection.recv(1) == b"":
                noticed.set()
            return "close"

        self.start(answer)
        client = socket.create_connection(("127.0.0.1", self.nginx.port))
        client.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
        self.assertTrue(client.recv(1))
        client.close()
        self.assertTrue(noticed.wait(PATIENCE))

    def test_metrics_are_not_those_of_some_rank(self):
        (rank,) = self.start(whole(b"metrics"))
        self.assertEqual(self.post(path="/metrics").status, 404)
        self.assertEqual(rank.bodies, [])


if __name__ == "__main__":
    if NGINX is None:
        print("SKIPPED: nginx is missing; run tools/setup")
        sys.exit(77)
    unittest.main(verbosity=2)
