"""Ranks die, hang and come back under streaming load; whoever was not on them never notices."""

import os
import random
import signal
import time
import unittest

from client import Streams, request
from fleet import GAVE_UP, REFUSED, TIME_FACTOR, Fleet, alive, model_dir, wait_until
from load import BODIES, Load

SLOW = os.environ.get("FLOTILLA_E2E") == "slow"
EARLY_WINDOW = 2.2  # a rank that dies sooner after it was ready is started later


class Killer:
    """Kills ranks of a loaded fleet, and knows when each is back."""

    def __init__(self, test, fleet, load):
        self.test, self.fleet, self.load = test, fleet, load
        self.kills = 0
        self.ready_at = {rank.index: time.monotonic() for rank in fleet}

    def kill(self, *indices):
        """All at once. Waits until they serve again."""
        for i in indices:
            settled = self.ready_at[i] + EARLY_WINDOW
            wait_until(lambda s=settled: time.monotonic() >= s, "a rank to count as settled")
        mark = self.fleet.mark()
        begun = [self.load.disturb(i, True, lambda i=i: self.fleet[i].signal(signal.SIGKILL))
                 for i in indices]
        self.kills += len(indices)
        for i, disturbance in zip(indices, begun):
            at, _ = self.fleet.wait_line(f"event=rank_ready rank={i} ", mark)
            self.ready_at[i] = at
            self.load.over(disturbance)
        return time.monotonic() - begun[0].at

    def verify(self, pause=1.0):
        load = self.load.stop()
        print(f"\n  {self.kills} kills, {load.summary()}")
        self.test.assertEqual(load.lost, [])
        self.test.assertEqual(load.altered, [])
        self.test.assertGreater(load.finished, 0)
        self.test.assertLess(load.longest_pause, pause * TIME_FACTOR)


class KillsUnderLoad(unittest.TestCase):
    def kill_at_random(self, ranks, kills, seed, per_rank=2, model="ernie45-moe", args=()):
        rng = random.Random(seed)
        with Fleet(ranks=ranks, model=model, args=args) as fleet:
            load = Load(fleet, per_rank=per_rank)
            load.wait_streaming()
            killer = Killer(self, fleet, load)
            for _ in range(kills):
                victim = rng.randrange(ranks)
                seen = sum(sum(load.events_open(r)) for r in range(ranks))
                goal = seen + rng.randrange(10, 400)
                wait_until(lambda: sum(sum(load.events_open(r)) for r in range(ranks)) >= goal
                           or sum(sum(load.events_open(r)) for r in range(ranks)) < seen,
                           "a random step")
                killer.kill(victim)
            killer.verify()
            for rank in fleet:
                self.assertEqual(rank.gauge("flotilla_ranks_alive"), ranks)
            self.assertEqual(fleet.drain(), 0)
            self.assertEqual(fleet.left_behind(), {})

    def test_kills_at_random_steps_of_four_ranks_lose_and_alter_nothing_of_others(self):
        self.kill_at_random(ranks=4, kills=10, seed=11)

    @unittest.skipUnless(SLOW, "slow")
    def test_a_hundred_kills_at_random_steps_of_four_ranks(self):
        self.kill_at_random(ranks=4, kills=100, seed=12)

    @unittest.skipUnless(SLOW, "slow")
    def test_kills_of_eight_ranks_some_of_which_hold_one_expert(self):
        self.kill_at_random(ranks=8, kills=24, seed=13, per_rank=1)

    @unittest.skipUnless(SLOW, "slow")
    def test_kills_over_tcp_mesh(self):
        self.kill_at_random(ranks=3, kills=15, seed=14, args=["--mesh-transport", "tcp"])

    @unittest.skipUnless(SLOW, "slow")
    def test_kills_with_a_tiny_pool_that_preempts(self):
        self.kill_at_random(ranks=3, kills=15, seed=15, per_rank=6,
                            args=["--num-gpu-blocks-override", "80", "--block-size", "32",
                                  "--max-num-batched-tokens", "96"])

    def test_kills_of_two_at_once_of_rank_0_and_of_all_but_one(self):
        with Fleet(ranks=4) as fleet:
            load = Load(fleet)
            load.wait_streaming()
            killer = Killer(self, fleet, load)
            for victims in ((0,), (1, 2), (0, 3), (0, 1, 2), (1, 2, 3)):
                load.wait_streaming()
                killer.kill(*victims)
            killer.verify()

    def test_a_kill_during_prefill_costs_nobody_else_a_token(self):
        long = {"prompt": [i % 1000 + 10 for i in range(1900)], "max_tokens": 8, "temperature": 1.0,
                "seed": 5, "ignore_eos": True, "return_token_ids": True}
        with Fleet(ranks=3, args=["--max-num-batched-tokens", "64",
                                  "--no-enable-prefix-caching"]) as fleet:
            load = Load(fleet, per_rank=1, bodies=[BODIES[0], long])
            load.wait_streaming(least=5)
            killer = Killer(self, fleet, load)
            for victim in (2, 1, 0):
                wait_until(lambda: fleet[victim].gauge("flotilla_tokens_to_prefill") > 300,
                           "a long prompt under way", pause=0.0)
                killer.kill(victim)
            killer.verify()

    def test_a_kill_during_the_restart_of_another_and_during_its_own_load(self):
        with Fleet(ranks=3) as fleet:
            load = Load(fleet)
            load.wait_streaming()
            killer = Killer(self, fleet, load)
            wait_until(lambda: time.monotonic() > killer.ready_at[0] + EARLY_WINDOW, "settling")
            first = load.disturb(1, True, lambda: fleet[1].signal(signal.SIGKILL))
            # As soon as the new process exists: it is loading, or about to.
            new = wait_until(lambda: fleet[1].pid_or_none(), "the new process", pause=0.0)
            second = load.disturb(2, True, lambda: fleet[2].signal(signal.SIGKILL))
            try:
                os.kill(new, signal.SIGKILL)
            except ProcessLookupError:
                pass
            killer.kills += 3
            fleet.wait_whole()
            for disturbance in (first, second):
                load.over(disturbance)
            killer.verify()

    def test_ten_sigkills_in_a_row_of_one_rank_are_ten_restarts_at_once(self):
        with Fleet(ranks=2) as fleet:
            load = Load(fleet, per_rank=1)
            killer = Killer(self, fleet, load)
            slowest = 0.0
            for _ in range(10):
                fleet.wait_whole()
                slowest = max(slowest, killer.kill(1))
            print(f"\n  slowest return {slowest * 1000:.0f} ms")
            self.assertEqual(fleet.find("event=rank_restart"), [], "no back-off")
            killer.verify()


class HangingRanks(unittest.TestCase):
    def test_a_stopped_rank_is_taken_out_killed_and_restarted_and_others_go_on(self):
        with Fleet(ranks=3, args=["--rank-timeout", "2"]) as fleet:
            load = Load(fleet)
            load.wait_streaming()
            mark = fleet.mark()
            pid = fleet[2].pid
            stopped = load.disturb(2, True, lambda: os.kill(pid, signal.SIGSTOP))
            fleet.wait_line("event=rank_hung rank=2", mark)
            waited = time.monotonic() - stopped.at
            fleet.wait_line("event=rank_ready rank=2 ", mark)
            load.over(stopped)
            fleet.wait_whole()
            self.assertFalse(alive(pid))
            self.assertLess(waited, 3.5 * TIME_FACTOR)
            load.stop()
            print(f"\n  taken out after {waited:.2f} s; {load.summary()}")
            self.assertEqual(load.lost + load.altered, [])
            self.assertLess(load.longest_pause, waited + 1.0 * TIME_FACTOR)

    def test_a_rank_stopped_for_less_than_the_timeout_costs_nobody_anything(self):
        with Fleet(ranks=3, args=["--rank-timeout", "10"]) as fleet:
            load = Load(fleet)
            load.wait_streaming()
            for _ in range(3):
                os.kill(fleet[1].pid, signal.SIGSTOP)
                seen = load.events_open(0)
                time.sleep(0.5)
                os.kill(fleet[1].pid, signal.SIGCONT)
                load.wait_streaming()
            load.stop()
            print(f"\n  {load.summary()}")
            self.assertEqual(load.lost + load.altered, [])
            self.assertEqual(load.excused + load.refused, 0)
            self.assertEqual(fleet.find("event=rank_hung|event=rank_died"), [])

    def test_a_launcher_stopped_for_longer_than_the_timeout_takes_nobody_for_dead(self):
        with Fleet(ranks=3, args=["--rank-timeout", "1"]) as fleet:
            load = Load(fleet)
            load.wait_streaming()
            fleet.signal(signal.SIGSTOP)
            time.sleep(3)
            fleet.signal(signal.SIGCONT)
            load.wait_streaming()
            time.sleep(1.5)
            load.stop()
            print(f"\n  {load.summary()}")
            self.assertEqual(load.lost + load.altered, [])
            self.assertEqual(fleet.find("event=rank_hung|event=rank_died"), [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
