"""Headless ranks, alone and in a fleet, served through their queue ports only."""

import os
import re
import signal
import socket
import struct
import subprocess
import tempfile
import time
import unittest

from client import HOST, gauge, refuses, request
from fleet import BIN, OK, TIME_FACTOR, Fleet, alive, model_dir, reference_prompts, wait_until
from queue_client import CANCELLED, DRAIN, ERROR, LENGTH, QueueClient, secret_of

SECRET = "a secret for the queue port's test"
MODEL = "ernie45-moe"


def free_ports(count):
    """A run of free ports: the fleet's queue ports are not in its log."""
    for _ in range(100):
        with socket.socket() as first:
            first.bind((HOST, 0))
            base = first.getsockname()[1]
        taken = []
        try:
            for port in range(base, base + count):
                taken.append(socket.socket())
                taken[-1].bind((HOST, port))
            return base
        except OSError:
            continue
        finally:
            for sock in taken:
                sock.close()
    raise AssertionError("no run of free ports")


def headless_fleet(ranks, base, args=()):
    return Fleet(ranks=ranks, model=MODEL, env={"FLOTILLA_CLUSTER_SECRET": SECRET},
                 args=["--headless", "--engine-worker-queue-port", str(base), *args])


class Alone(unittest.TestCase):
    def test_a_headless_rank_without_a_launcher_serves_its_queue_port_until_sigterm(self):
        port = free_ports(3)
        with tempfile.TemporaryDirectory() as folder:
            process = subprocess.Popen(
                [os.path.join(BIN, "api_server"), "--headless", "--model", model_dir(MODEL),
                 "--activation-dtype", "f32", "--port", str(port + 1),
                 "--metrics-port", str(port + 2), "--engine-worker-queue-port", str(port)],
                env={**os.environ, "FLOTILLA_CLUSTER_SECRET": SECRET}, cwd=folder,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                wait_until(lambda: not refuses(port + 2)
                           and request(port + 2, "/ready").status == 200, "the rank")
                prompts = reference_prompts(MODEL)
                with QueueClient(port, secret_of(SECRET)) as client:
                    for i, (prompt, _) in enumerate(prompts):
                        client.submit(i, prompt, 32)
                    done = client.collect(*range(len(prompts)))
                    for i, (_, tokens) in enumerate(prompts):
                        self.assertEqual(done[i][0], tokens)
                        self.assertEqual(done[i][1].finish, LENGTH)
                self.assertEqual(request(port + 1, "/v1/completions", {"prompt": [1]}).status, 404)
                process.send_signal(signal.SIGTERM)
                self.assertEqual(process.wait(20), OK)
            finally:
                process.kill()
                process.wait()


class InAFleet(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.base = free_ports(2)
        cls.fleet = headless_fleet(2, cls.base)
        cls.prompt, cls.tokens = reference_prompts(MODEL)[3]

    @classmethod
    def tearDownClass(cls):
        cls.fleet.close()

    def client(self, rank=0):
        return QueueClient(self.base + rank, secret_of(SECRET))

    def running(self, rank=0):
        return gauge(self.fleet[rank].metrics_port, "fastdeploy:num_requests_running")

    def test_both_ranks_give_the_reference_tokens_and_no_http_route_generates(self):
        for rank in (0, 1):
            with self.client(rank) as client:
                self.assertEqual(client.rank, rank)
                client.submit(1, self.prompt, 32, logprobs=3)
                tokens, last = client.collect(1)[1]
                self.assertEqual(tokens, self.tokens)
                self.assertEqual(last.finish, LENGTH)
            for port in (self.fleet[rank].port, self.fleet[rank].metrics_port):
                answer = request(port, "/v1/completions", {"prompt": [1], "max_tokens": 1})
                self.assertEqual(answer.status, 404, answer)
                self.assertEqual(request(port, "/ready").status, 200)

    def test_a_wrong_secret_is_refused(self):
        with self.assertRaises((PermissionError, ConnectionError)):
            QueueClient(self.base, secret_of("another secret of enough bytes"))

    def test_a_request_placed_again_with_its_tokens_goes_on_behind_them(self):
        with self.client(1) as client:
            client.submit(9, self.prompt, 32, generation=5, produced=self.tokens[:13])
            tokens, last = client.collect(9)[9]
            self.assertEqual(tokens, self.tokens[13:])
            client.submit(9, self.prompt, 200, temperature=1.0, seed=3, generation=6)
            whole = client.collect(9)[9][0]
            for cut in (1, 64, 199):
                client.submit(9, self.prompt, 200, temperature=1.0, seed=3, generation=7 + cut,
                              produced=whole[:cut])
                self.assertEqual(client.collect(9)[9][0], whole[cut:], f"cut at {cut}")

    def test_cancel_ends_one_sequence_and_a_vanished_client_all_of_its(self):
        with self.client() as client:
            client.submit(1, self.prompt, 1900)
            client.submit(2, self.prompt, 300)
            client.batch()
            client.cancel(1)
            done = client.collect(1, 2)
            self.assertEqual(done[1][1].finish, CANCELLED)
            self.assertEqual(done[2][1].finish, LENGTH)
            self.assertEqual(len(done[2][0]) >= 299, True)
        client = self.client()
        for i in range(6):
            client.submit(i, self.prompt, 1900)
        client.batch()
        wait_until(lambda: self.running() == 6, "six to run")
        client.close()
        wait_until(lambda: self.running() == 0, "none to run", 5)

    def test_bad_requests_and_garbage_hurt_nobody_else(self):
        with self.client() as good:
            good.submit(1, self.prompt, 1500)
            good.batch()
            with self.client() as bad:
                bad.submit(1, [5000], 4)
                last = bad.collect(1)[1][1]
                self.assertEqual(last.finish, ERROR)
                self.assertIn("5000", last.error)
            pid = self.fleet[0].pid
            for junk in (b"", b"\0" * 64, b"GET / HTTP/1.1\r\n\r\n", struct.pack("<I", 1 << 31),
                         os.urandom(5000), struct.pack("<I", 3) + b"\xff\xff\xff"):
                with socket.create_connection((HOST, self.base)) as sock:
                    sock.sendall(junk)
            with self.client() as accepted:
                accepted.socket.sendall(struct.pack("<I", 40) + os.urandom(40))
                with self.assertRaises((ConnectionError, OSError)):
                    while True:
                        accepted.receive()
            tokens, last = good.collect(1)[1]
            self.assertEqual(last.finish, LENGTH)
            self.assertEqual(self.fleet[0].pid, pid)

    def test_a_kill_of_the_other_rank_does_not_touch_a_stream_of_this_one(self):
        with self.client(0) as client:
            client.submit(1, self.prompt, 1500, temperature=1.0, seed=8)
            expected = client.collect(1)[1][0]
            client.submit(2, self.prompt, 1500, temperature=1.0, seed=8)
            client.batch()
            mark = self.fleet.mark()
            self.fleet[1].kill()
            # The first batch was read above.
            got = client.collect(2)[2][0]
            self.assertEqual(got, expected[-len(got):])
            self.assertGreater(len(got), 1400)
            self.fleet.wait_line("event=rank_ready rank=1 ", mark)


class Drains(unittest.TestCase):
    def test_sigterm_lets_queue_clients_finish_and_refuses_new_work(self):
        base = free_ports(2)
        prompt, _ = reference_prompts(MODEL)[1]
        with headless_fleet(2, base) as fleet:
            with QueueClient(base, secret_of(SECRET)) as client:
                for i in range(4):
                    client.submit(i, prompt, 1500, logprobs=5)
                wait_until(lambda: gauge_or_none(fleet[0].metrics_port) == 4, "four to run")
                fleet.signal(signal.SIGTERM)
                fleet.wait_line("rank=0 event=draining")
                client.submit(9, prompt, 4)
                done = client.collect(0, 1, 2, 3, 9)
                self.assertEqual(done[9][1].finish, ERROR)
                self.assertIn("draining", done[9][1].error)
                for i in range(4):
                    self.assertEqual(done[i][1].finish, LENGTH)
                    self.assertEqual(len(done[i][0]), 1500)
            self.assertEqual(fleet.wait(), OK)
            self.assertEqual(fleet.left_behind(), {})

    def test_a_slow_queue_client_gets_its_last_tokens_before_a_drained_rank_ends(self):
        base = free_ports(1)
        prompt, _ = reference_prompts(MODEL)[1]
        with headless_fleet(1, base, ["--max-num-seqs", "32"]) as fleet:
            with QueueClient(base, secret_of(SECRET), receive_buffer=4096) as client:
                for i in range(32):
                    client.submit(i, prompt, 1000, logprobs=20)
                wait_until(lambda: gauge_or_none(fleet[0].metrics_port) == 32, "all to run")
                fleet.signal(signal.SIGTERM)
                # Nothing is read until everything has been computed: more than the sockets hold.
                wait_until(lambda: gauge_or_none(fleet[0].metrics_port) in (0, None),
                           "the engine to be done")
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
                done = client.collect(*range(32))
                for i in range(32):
                    self.assertEqual(done[i][1].finish, LENGTH)
                    self.assertEqual(len(done[i][0]), 1000)
            self.assertEqual(fleet.wait(), OK)

    def test_a_drain_ordered_by_a_queue_client_is_a_rolling_restart_of_that_rank(self):
        base = free_ports(2)
        prompt, _ = reference_prompts(MODEL)[1]
        with headless_fleet(2, base) as fleet:
            settled = time.monotonic() + 2.2
            wait_until(lambda: time.monotonic() > settled, "ranks to count as settled")
            old, mark = fleet[1].pid, fleet.mark()
            with QueueClient(base + 1, secret_of(SECRET)) as client:
                client.submit(1, prompt, 1200)
                client.batch()
                client.send(DRAIN)
                self.assertEqual(client.collect(1)[1][1].finish, LENGTH)
            fleet.wait_line("event=rank_ready rank=1 ", mark)
            self.assertFalse(alive(old))
            self.assertEqual(fleet.find("rank_died|rank_restart", mark), [])


def gauge_or_none(port):
    try:
        return gauge(port, "fastdeploy:num_requests_running")
    except OSError:
        return None


if __name__ == "__main__":
    unittest.main(verbosity=2)
