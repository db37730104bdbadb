"""Streaming load on a fleet whose ranks are disturbed: every stream is compared with what it must
be, and whoever was not disturbed must have got all of it."""

import threading
import time

from client import Streams
from fleet import wait_until

# Sampled ones, since greedy text of a random model repeats itself and hides a lost token.
BODIES = [
    {"prompt": [3, 1, 4, 1, 5], "max_tokens": 700, "temperature": 1.0, "seed": 1},
    {"prompt": list(range(300, 440)), "max_tokens": 500, "temperature": 0.8, "seed": 2,
     "presence_penalty": 0.5},
    {"prompt": [9] * 65, "max_tokens": 600, "temperature": 1.0, "seed": 3, "top_p": 0.95},
    {"prompt": list(range(100, 900)), "max_tokens": 300, "temperature": 1.0, "seed": 4, "top_k": 50},
    {"prompt": [700, 20], "max_tokens": 900, "temperature": 0.0},
]
for body in BODIES:
    body.update(ignore_eos=True, return_token_ids=True)


class Disturbance:
    """What was done to one rank. `lossy`: its own streams break off; else (a drain) only requests that
    came too late are refused."""

    def __init__(self, rank, at, lossy):
        self.rank, self.at, self.lossy = rank, at, lossy
        self.over_at = float("inf")


class Load:
    """Keeps `per_rank` streams open on every rank until stop(). Threads: its own; read the counters
    after stop()."""

    def __init__(self, fleet, per_rank=2, bodies=BODIES, prepare=True):
        self.fleet, self.per_rank, self.bodies = fleet, per_rank, bodies
        self.streams = Streams()
        self.references = None
        self.disturbances = []
        self.finished = self.excused = self.refused = self.tokens = 0
        self.lost, self.altered = [], []
        self.longest_pause = 0.0
        self._lock = threading.Lock()
        self._stopping = False
        self._open = {rank.index: [] for rank in fleet}
        self._next = 0
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        if prepare:
            self.prepare()

    def prepare(self):
        """The undisturbed reference, and the start of the load."""
        running = [self.streams.start(self.fleet[0].port, body) for body in self.bodies]
        for stream in running:
            if not stream.wait().whole:
                raise AssertionError("no reference: " + stream.describe())
        self.references = [stream.tokens for stream in running]
        self._thread.start()

    def disturb(self, rank, lossy, action):
        """Notes the moment, then acts. Call over() when the rank serves again."""
        disturbance = Disturbance(rank, time.monotonic(), lossy)
        with self._lock:
            self.disturbances.append(disturbance)
        action()
        return disturbance

    def over(self, disturbance):
        with self._lock:
            disturbance.over_at = time.monotonic()

    def stop(self):
        """Lets all open streams end, judges them, and returns self."""
        self._stopping = True
        self._thread.join()
        self.streams.__exit__()
        return self

    def events_open(self, rank):
        """Events that came so far to each open stream of a rank."""
        return [stream.events_seen for stream, _ in list(self._open[rank])]

    def wait_streaming(self, least=20):
        """Every rank that can has streams under way."""
        for rank in self.fleet:
            wait_until(lambda r=rank: max(self.events_open(r.index), default=0) >= least,
                       f"streams of rank {rank.index} under way")

    def _run(self):
        # The last streams are waited for, but not for ever: a stream that hangs is a lost one.
        deadline = None
        while True:
            busy = False
            for rank in self.fleet:
                still_open = []
                for stream, which in self._open[rank.index]:
                    if stream.done():
                        self._judge(stream, which, rank.index)
                    else:
                        still_open.append((stream, which))
                while not self._stopping and len(still_open) < self.per_rank:
                    which = self._next % len(self.bodies)
                    self._next += 1
                    still_open.append(
                        (self.streams.start(rank.port, self.bodies[which]), which))
                self._open[rank.index] = still_open
                busy |= bool(still_open)
            if self._stopping:
                deadline = deadline or time.monotonic() + 120
                if not busy:
                    return
                if time.monotonic() > deadline:
                    for index, streams in self._open.items():
                        self.lost += [f"hangs: rank {index}, {s.events_seen} events"
                                      for s, _ in streams]
                    return
            time.sleep(0.01)

    def _judge(self, stream, which, rank):
        ended = time.monotonic()
        with self._lock:
            mine = [d for d in self.disturbances if d.rank == rank
                    and d.at - 0.05 <= ended and stream.started <= d.over_at + 0.5]
        may_break = any(d.lossy for d in mine)
        nothing_came = stream.status is None or stream.status in (429, 503)
        tokens = stream.tokens
        if nothing_came and mine:
            self.refused += 1
            time.sleep(0.02)  # as a client that tries again does
            return
        if tokens != self.references[which][:len(tokens)]:
            at = next(i for i, (a, b) in enumerate(zip(tokens, self.references[which])) if a != b) \
                if len(tokens) <= len(self.references[which]) else len(self.references[which])
            self.altered.append(f"body {which} at token {at}: " + stream.describe())
        elif stream.whole and len(tokens) == len(self.references[which]):
            self.finished += 1
            self.tokens += len(tokens)
        elif may_break:
            self.excused += 1
        else:
            self.lost.append(f"body {which}: " + stream.describe())
        if not may_break:
            self.longest_pause = max(self.longest_pause, stream.longest_gap())

    def summary(self):
        return (f"{self.finished} streams whole ({self.tokens} tokens), {self.excused} of killed "
                f"ranks, {self.refused} refused by ranks on their way, {len(self.lost)} lost, "
                f"{len(self.altered)} altered, longest pause {self.longest_pause * 1000:.0f} ms")
