"""SIGTERM: what runs ends whole, what is new is refused at once, and nothing is left."""

import os
import signal
import socket
import threading
import time
import unittest

from client import HOST, Streams, refuses, request
from fleet import CONFIG, OK, STREAMS_CUT, TIME_FACTOR, Fleet, alive, wait_until
from load import Load

BODY = {"prompt": [3, 1, 4, 1, 5], "max_tokens": 1800, "temperature": 1.0, "seed": 7,
        "ignore_eos": True, "return_token_ids": True}
SHORT = {**BODY, "max_tokens": 3}


class Probes:
    """Asks a rank again and again from now on: [(time asked, status, headers)]."""

    def __init__(self, port):
        self.port, self.answers, self.readiness = port, [], []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=a, daemon=True)
                         for a in ((self.answers, "/v1/completions", SHORT),
                                   (self.readiness, "/ready", None))]
        for thread in self._threads:
            thread.start()

    def _run(self, out, path, body):
        while not self._stop.is_set():
            asked = time.monotonic()
            try:
                answer = request(self.port, path, body, timeout=10)
                out.append((asked, answer.status, answer))
            except OSError as error:
                out.append((asked, None, error))

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join()


class DrainTest(unittest.TestCase):
    def start_streams(self, fleet, streams, per_rank=2):
        """[streams under way], and what they must become."""
        reference = streams.start(fleet[0].port, BODY).wait().tokens
        self.assertEqual(len(reference), BODY["max_tokens"])
        running = [streams.start(rank.port, BODY) for rank in fleet for _ in range(per_rank)]
        wait_until(lambda: all(s.events_seen > 30 for s in running), "streams under way")
        return running, reference

    def all_whole(self, running, reference):
        for stream in running:
            stream.wait()
            self.assertTrue(stream.whole, stream.describe())
            self.assertEqual(stream.stream_errors, [])
            self.assertEqual(stream.tokens, reference)

    def nothing_left(self, fleet):
        self.assertEqual(fleet.left_behind(), {})
        self.assertEqual(fleet.run_dirs(), [])

    def refused_at_once(self, probes, told_at, running):
        """From 100 ms after the signal on, while streams run, everything new got 503."""
        ended = min(s.read_times()[-1] for s in running)
        limit = told_at + 0.1 * TIME_FACTOR
        late = [a for a in probes.answers if limit <= a[0] < ended - 0.05]
        self.assertGreater(len(late), 3, "the streams were too short to see anything")
        for _, status, answer in late:
            self.assertEqual(status, 503, answer)
            self.assertIn("retry-after", answer.headers)
            self.assertIn("error", answer.json())
        for _, status, answer in [r for r in probes.readiness if limit <= r[0] < ended - 0.05]:
            self.assertEqual((status, answer.json()["status"]), (503, "draining"))
        first = min((at for at, status, _ in probes.answers if status == 503), default=told_at)
        return first - told_at


class FleetDrain(DrainTest):
    def drain_whole(self, act, **kinds):
        with Fleet(ranks=2, **kinds) as fleet, Streams() as streams:
            running, reference = self.start_streams(fleet, streams)
            idle = socket.create_connection((HOST, fleet[0].port))  # holds nobody up
            probes = [Probes(rank.port) for rank in fleet]
            wait_until(lambda: all(p.answers and p.readiness for p in probes), "the probes")
            told_at = time.monotonic()
            act(fleet)
            self.all_whole(running, reference)
            first = max(self.refused_at_once(p, told_at, running) for p in probes)
            last_byte = max(s.read_times()[-1] for s in running)
            self.assertEqual(fleet.wait(), OK)
            print(f"\n  503 after {first * 1000:.0f} ms, ended "
                  f"{(time.monotonic() - last_byte) * 1000:.0f} ms after the last stream")
            for p in probes:
                p.stop()
            idle.close()
            self.nothing_left(fleet)
            self.assertEqual(fleet.find("rank_died|rank_ended_in_drain"), [])

    def test_sigterm_lets_streams_finish_refuses_new_ones_within_100_ms_and_ends_with_0(self):
        self.drain_whole(lambda fleet: fleet.signal(signal.SIGTERM))

    def test_sigint_does_the_same_for_a_dense_model(self):
        self.drain_whole(lambda fleet: fleet.signal(signal.SIGINT), model="llama")

    def test_sigterm_to_all_processes_at_once_as_systemd_does_cuts_nothing(self):
        def everybody(fleet):
            for pid in fleet.pids():
                os.kill(pid, signal.SIGTERM)

        self.drain_whole(everybody)

    def test_sigterm_to_a_rank_and_then_to_the_launcher_cuts_nothing(self):
        with Fleet(ranks=2) as fleet, Streams() as streams:
            running, reference = self.start_streams(fleet, streams)
            os.kill(fleet[1].pid, signal.SIGTERM)
            fleet.wait_line("rank=1 event=draining")
            self.assertEqual(fleet.drain(), OK)
            self.all_whole(running, reference)
            self.nothing_left(fleet)

    def test_an_idle_fleet_ends_soon_though_connections_are_open(self):
        with Fleet(ranks=3) as fleet:
            idle = [socket.create_connection((HOST, rank.port)) for rank in fleet]
            begin = time.monotonic()
            self.assertEqual(fleet.drain(), OK)
            self.assertLess(time.monotonic() - begin, 2.0 * TIME_FACTOR)
            for sock in idle:
                sock.close()
            self.nothing_left(fleet)

    def test_a_second_signal_cuts_streams_and_says_so_by_exit_code(self):
        with Fleet(ranks=2) as fleet, Streams() as streams:
            running, _ = self.start_streams(fleet, streams)
            mark = fleet.mark()
            fleet.signal(signal.SIGTERM)
            fleet.wait_line("event=drain ", mark)
            begin = time.monotonic()
            fleet.signal(signal.SIGTERM)
            self.assertEqual(fleet.wait(), STREAMS_CUT)
            self.assertLess(time.monotonic() - begin, 3.0 * TIME_FACTOR)
            self.assertFalse(any(s.wait().whole for s in running))
            self.nothing_left(fleet)

    def test_a_second_signal_without_streams_ends_with_0(self):
        with Fleet(ranks=2) as fleet:
            fleet.signal(signal.SIGTERM)
            fleet.wait_line("event=drain ")
            if fleet.process.poll() is None:
                fleet.signal(signal.SIGTERM)
            self.assertEqual(fleet.wait(), OK)

    def test_streams_longer_than_the_graceful_timeout_are_cut_with_the_documented_code(self):
        # The engine without a model: its streams are as long as wanted.
        args = ["--engine", "null", "--null-rate", "20", "--timeout-graceful-shutdown", "1"]
        with Fleet(ranks=2, model=None, tokenizer=False, expert_parallel=False,
                   args=args) as fleet, Streams() as streams:
            running = [streams.start(rank.port, {"prompt": "x", "max_tokens": 1000})
                       for rank in fleet]
            wait_until(lambda: all(s.events_seen > 3 for s in running), "streams under way")
            begin = time.monotonic()
            self.assertEqual(fleet.drain(), STREAMS_CUT)
            took = time.monotonic() - begin
            self.assertGreater(took, 0.9)
            self.assertLess(took, 1.0 + 2.0 * TIME_FACTOR)
            for stream in running:
                self.assertFalse(stream.wait().whole)
            self.nothing_left(fleet)

    def test_a_rank_killed_in_the_drain_costs_its_own_streams_only(self):
        with Fleet(ranks=3) as fleet, Streams() as streams:
            running, reference = self.start_streams(fleet, streams, per_rank=1)
            fleet.signal(signal.SIGTERM)
            fleet.wait_line("rank=2 event=draining")
            fleet[2].kill()
            self.all_whole(running[:2], reference)
            self.assertEqual(fleet.wait(), STREAMS_CUT)
            self.assertFalse(running[2].wait().whole)
            self.nothing_left(fleet)

    def test_with_on_rank_loss_wait_a_rank_killed_in_the_drain_comes_back_for_the_others(self):
        with Fleet(ranks=3, args=["--on-rank-loss", "wait"]) as fleet, Streams() as streams:
            time.sleep(2.2)  # the kill shall not count as an early death
            running, reference = self.start_streams(fleet, streams, per_rank=1)
            fleet.signal(signal.SIGTERM)
            fleet.wait_line("rank=2 event=draining")
            fleet[2].kill()
            self.all_whole(running[:2], reference)
            self.assertEqual(fleet.wait(), STREAMS_CUT)
            self.nothing_left(fleet)

    def test_sigterm_while_a_rank_restarts_ends_cleanly(self):
        with Fleet(ranks=3) as fleet, Streams() as streams:
            running, reference = self.start_streams(fleet, streams, per_rank=1)
            fleet[1].kill()
            fleet.wait_line("rank 1: ended")  # before the drain: no stream is cut by it
            fleet.signal(signal.SIGTERM)
            self.all_whole([running[0], running[2]], reference)
            self.assertEqual(fleet.wait(), OK)
            self.nothing_left(fleet)

    def test_sigterm_before_the_fleet_is_ready_ends_it(self):
        for delay in (0.0, 0.01, 0.03, 0.06):
            fleet = Fleet(ranks=3, wait=False)
            try:
                fleet.wait_line("rank 0: starting")
                time.sleep(delay)
                begin = time.monotonic()
                self.assertIn(fleet.drain(), (OK,))
                self.assertLess(time.monotonic() - begin, 6 * TIME_FACTOR)
                self.nothing_left(fleet)
            finally:
                fleet.close()


class RankDrain(DrainTest):
    def test_sigterm_to_one_rank_is_a_rolling_restart_that_nobody_notices(self):
        with Fleet(ranks=3) as fleet, Streams() as streams:
            running, reference = self.start_streams(fleet, streams)
            probes = Probes(fleet[1].port)
            wait_until(lambda: probes.answers and probes.readiness, "the probes")
            mark, old = fleet.mark(), fleet[1].pid
            told_at = time.monotonic()
            os.kill(old, signal.SIGTERM)
            fleet.wait_line("event=rank_left rank=1", mark)
            fleet.wait_line("event=rank_ready rank=1 ", mark)
            self.all_whole(running, reference)
            self.refused_at_once(probes, told_at, [s for s in running if s.port == fleet[1].port])
            probes.stop()
            fleet.wait_whole()
            self.assertFalse(alive(old))
            self.assertEqual(fleet.find("rank_died|rank_restart|rank_hung", mark), [])
            again = streams.start(fleet[1].port, BODY).wait()
            self.assertEqual(again.tokens, reference)
            pause = max(s.longest_gap(since=told_at) for s in running)
            print(f"\n  longest pause {pause * 1000:.0f} ms")
            self.assertLess(pause, 1.0 * TIME_FACTOR)

    def test_all_ranks_in_turn_under_load_lose_and_alter_nothing(self):
        with Fleet(ranks=4) as fleet:
            load = Load(fleet)
            load.wait_streaming()
            settled = time.monotonic() + 2.2
            wait_until(lambda: time.monotonic() > settled, "ranks to count as settled")
            for rank in fleet:
                mark = fleet.mark()
                drained = load.disturb(rank.index, False,
                                       lambda r=rank: r.signal(signal.SIGTERM))
                fleet.wait_line(f"event=rank_ready rank={rank.index} ", mark)
                load.over(drained)
            load.wait_streaming()
            load.stop()
            print(f"\n  {load.summary()}")
            self.assertEqual(load.lost + load.altered, [])
            self.assertEqual(load.excused, 0)
            self.assertEqual(fleet.find("rank_died|rank_restart|rank_hung"), [])
            self.assertEqual(fleet.drain(), OK)

    def test_two_ranks_drained_at_once_and_one_killed_meanwhile(self):
        with Fleet(ranks=4) as fleet:
            load = Load(fleet)
            load.wait_streaming()
            settled = time.monotonic() + 2.2
            wait_until(lambda: time.monotonic() > settled, "ranks to count as settled")
            mark = fleet.mark()
            over = [load.disturb(i, False, lambda i=i: fleet[i].signal(signal.SIGTERM))
                    for i in (0, 2)]
            over.append(load.disturb(1, True, lambda: fleet[1].signal(signal.SIGKILL)))
            for disturbance in over:
                fleet.wait_line(f"event=rank_ready rank={disturbance.rank} ", mark)
                load.over(disturbance)
            fleet.wait_whole()
            load.stop()
            print(f"\n  {load.summary()}")
            self.assertEqual(load.lost + load.altered, [])

    def test_a_rolling_restart_with_on_rank_loss_wait_pauses_the_others_and_alters_nothing(self):
        with Fleet(ranks=3, args=["--on-rank-loss", "wait"]) as fleet:
            load = Load(fleet)
            load.wait_streaming()
            settled = time.monotonic() + 2.2
            wait_until(lambda: time.monotonic() > settled, "ranks to count as settled")
            for rank in fleet:
                mark = fleet.mark()
                drained = load.disturb(rank.index, False,
                                       lambda r=rank: r.signal(signal.SIGTERM))
                fleet.wait_line(f"event=rank_ready rank={rank.index} ", mark)
                load.over(drained)
            fleet.wait_whole()
            load.stop()
            print(f"\n  {load.summary()}")
            self.assertEqual(load.lost + load.altered, [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
