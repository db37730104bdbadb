"""An idle fleet sleeps: eight ranks, their launcher and the clock."""

import os
import time
import unittest

from client import request
from fleet import Fleet, wait_until

CPU_LIMIT = 0.050
SECONDS = 10


def threads_of(pid):
    """{(pid, tid): (nanoseconds on a CPU, context switches, name)}."""
    out = {}
    for tid in os.listdir(f"/proc/{pid}/task"):
        folder = f"/proc/{pid}/task/{tid}"
        with open(f"{folder}/schedstat") as file:
            ran = int(file.read().split()[0])
        with open(f"{folder}/status") as file:
            fields = dict(line.split(":\t", 1) for line in file if ":\t" in line)
        switches = int(fields["voluntary_ctxt_switches"]) + int(
            fields["nonvoluntary_ctxt_switches"])
        out[pid, tid] = (ran, switches, fields["Name"].strip())
    return out


class Idle(unittest.TestCase):
    def test_eight_idle_ranks_use_50_ms_of_cpu_in_10_s_and_nothing_wakes_periodically(self):
        with Fleet(ranks=8) as fleet:
            # Not idle from birth: every thread has worked once.
            for rank in fleet:
                request(rank.port, "/v1/completions", {"prompt": [1, 2], "max_tokens": 20})
                request(rank.port, "/metrics")
            pids = fleet.pids()
            wait_until(lambda: all(rank.idle() for rank in fleet), "idle ranks")
            # Threads that were busy a moment ago may still put themselves to bed.
            time.sleep(2)
            before = {k: v for pid in pids for k, v in threads_of(pid).items()}
            time.sleep(SECONDS)
            after = {k: v for pid in pids for k, v in threads_of(pid).items()}
            cpu = sum(after[k][0] - before.get(k, (0, 0, ""))[0] for k in after) / 1e9
            woken = sorted(((after[k][1] - before.get(k, (0, 0, ""))[1], after[k][2], k[0])
                            for k in after), reverse=True)
            total = sum(w[0] for w in woken)
            print(f"\n  {cpu * 1000:.1f} ms of CPU and {total} context switches in {SECONDS} s, "
                  f"{len(after)} threads; most: {woken[:4]}")
            self.assertLessEqual(cpu, CPU_LIMIT)
            # Heartbeats come every five seconds; the clock's thread hears those of all ranks.
            for switches, name, pid in woken:
                self.assertLessEqual(switches, 60 if name == "step-clock" else 10, (name, pid))


if __name__ == "__main__":
    unittest.main(verbosity=2)
