"""A fleet of real processes for one test: started on free ports in a private folder, watched by its
log and /proc, and gone without a trace at the end."""

import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time

from client import gauge, request

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.environ.get("FLOTILLA_BUILD", os.path.join(HERE, "..", "..", "build", "release"))
BIN = os.path.join(BUILD, "bin")
MODELS = os.path.join(BUILD, "tests", "models")
# Sanitizers and busy machines: every deadline and every limit on a measured time is stretched.
TIME_FACTOR = float(os.environ.get("FLOTILLA_TIME_FACTOR", "1"))
DEADLINE = 60 * TIME_FACTOR

# Of common/exit_codes.h.
OK, FAILURE, CONFIG, PORT_BUSY, GAVE_UP, REFUSED, STREAMS_CUT = range(7)


def wait_until(condition, what, timeout=DEADLINE, pause=0.005):
    """The first true value of condition(). Fails, naming `what`, when the time is over."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:g} s for {what}")
        time.sleep(pause)


# ---- models ----------------------------------------------------------------------------------------


def model_dir(name):
    return os.path.join(MODELS, name)


def reference_prompts(name):
    """[(prompt ids, greedy tokens)] of a fixture, as its maker computed them."""
    folder = model_dir(name)
    with open(os.path.join(folder, "reference.json")) as file:
        greedy = [prompt["greedy"] for prompt in json.load(file)["prompts"]]
    with open(os.path.join(folder, "reference.safetensors"), "rb") as file:
        data = file.read()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + size])
    out = []
    for i, tokens in enumerate(greedy):
        begin, end = header[f"p{i}.input_ids"]["data_offsets"]
        raw = data[8 + size + begin:8 + size + end]
        out.append((list(struct.unpack(f"<{len(raw) // 4}i", raw)), tokens))
    return out


def byte_alphabet():
    """How byte-level BPE writes the 256 bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    alphabet = {b: chr(b) for b in plain}
    for i, b in enumerate(b for b in range(256) if b not in alphabet):
        alphabet[b] = chr(256 + i)
    return alphabet


def write_tokenizer(folder, vocab_size=1024):
    """The fixtures have no tokenizer. This one has 256 bytes (ids 0 to 255, so that one token can be
    half a character) and words " w256" …: every other id has a text of its own."""
    alphabet = byte_alphabet()
    vocab = {alphabet[b]: b for b in range(256)}
    vocab.update({alphabet[32] + f"w{i}": i for i in range(256, vocab_size)})
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    with open(os.path.join(folder, "tokenizer.json"), "w") as file:
        json.dump({"version": "1.0", "added_tokens": [], "normalizer": None,
                   "pre_tokenizer": {**level, "use_regex": False}, "post_processor": None,
                   "decoder": level, "model": {"type": "BPE", "vocab": vocab, "merges": []}}, file)
    return folder


def token_bytes(token):
    return bytes([token]) if token < 256 else f" w{token}".encode()


def text_of(tokens):
    """What write_tokenizer()'s tokens decode to."""
    return b"".join(token_bytes(t) for t in tokens).decode(errors="replace")


# ---- processes -------------------------------------------------------------------------------------


def processes_naming(text):
    """{pid: command line} of all processes with `text` in their command line, this one excepted."""
    found = {}
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                line = file.read().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in line:
            found[int(name)] = line
    return found


def proc_status(pid, *names):
    with open(f"/proc/{pid}/status") as file:
        fields = dict(line.split(":", 1) for line in file if ":" in line)
    return [int(fields[name].split()[0]) for name in names]


def rss_bytes(pid):
    return proc_status(pid, "VmRSS")[0] * 1024


def num_fds(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


class Rank:
    """One rank of a fleet. Ports stay through restarts, the process does not."""

    def __init__(self, fleet, index):
        self.fleet, self.index = fleet, index
        self.port = self.metrics_port = None

    @property
    def pid(self):
        pid = self.pid_or_none()
        if pid is None:
            raise AssertionError(f"rank {self.index} has no process")
        return pid

    def pid_or_none(self):
        mark = f"--local-data-parallel-id {self.index} "
        for pid, line in processes_naming(self.fleet.folder).items():
            if mark in line + " " and alive(pid):
                return pid
        return None

    def signal(self, number):
        pid = self.pid
        os.kill(pid, number)
        return pid

    def kill(self):
        """SIGKILL. Returns the time just before it."""
        pid, now = self.pid, time.monotonic()
        os.kill(pid, signal.SIGKILL)
        return now

    def readiness(self):
        """(status, body) of /ready; (None, None) if the port refuses or breaks off."""
        try:
            answer = request(self.port, "/ready", timeout=10)
            return answer.status, answer.json()
        except OSError:
            return None, None

    def is_ready(self):
        return self.readiness()[0] == 200

    def gauge(self, name, **labels):
        return gauge(self.port, name, **labels)

    def idle(self):
        return (self.gauge("fastdeploy:num_requests_running") == 0
                and self.gauge("fastdeploy:num_requests_waiting") == 0)


class Fleet:
    """`with Fleet(ranks=2) as fleet:` waits until all ranks are ready. `args` are api_server's flags,
    `launcher` multi_api_server's. On failure the end of the fleet's log is printed."""

    def __init__(self, ranks=2, model="ernie45-moe", args=(), launcher=(), expert_parallel=True,
                 activation="f32", tokenizer=True, env=None, wait=True, stdout=None):
        self.folder = tempfile.mkdtemp(prefix="fl-", dir="/tmp")
        self.num_ranks = ranks
        self.ranks = [Rank(self, i) for i in range(ranks)]
        self.lines = []
        self._new_line = threading.Condition()
        command = [os.path.join(BIN, "multi_api_server"), "--num-servers", str(ranks),
                   "--metrics-ports", "0", "--log-dir", os.path.join(self.folder, "log"), *launcher,
                   "--args"]
        if model is not None:
            command += ["--model", model if os.path.isabs(model) else model_dir(model),
                        "--activation-dtype", activation]
        if tokenizer:
            folder = os.path.join(self.folder, "tokenizer")
            os.mkdir(folder)
            command += ["--tokenizer", write_tokenizer(folder)]
        if expert_parallel:
            command.append("--enable-expert-parallel")
        command += list(args)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("FLOTILLA_")}
        environment.update({"XDG_RUNTIME_DIR": self.folder, **(env or {})})
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment,
                                        stdout=stdout or subprocess.PIPE, stderr=subprocess.STDOUT,
                                        cwd=self.folder)
        self._reader = threading.Thread(target=self._read, daemon=True)
        if stdout is None:
            self._reader.start()
        if wait:
            try:
                self.wait_ready()
            except BaseException:
                self.close(failed=True)
                raise

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.close(failed=kind is not None)

    def __getitem__(self, index):
        return self.ranks[index]

    def __iter__(self):
        return iter(self.ranks)

    @property
    def pid(self):
        return self.process.pid

    def pids(self):
        return [self.pid] + [rank.pid for rank in self.ranks]

    def run_dirs(self):
        return [name for name in os.listdir(self.folder) if name.startswith("flotilla-")]

    # ---- log ----

    def _read(self):
        ports = re.compile(r"^\[rank (\d+)\] .*event=listening port=(\d+) metrics_port=(\d+)")
        for raw in self.process.stdout:
            line = raw.decode(errors="replace").rstrip("\n")
            found = ports.search(line)
            if found:
                rank = self.ranks[int(found[1])]
                rank.port, rank.metrics_port = int(found[2]), int(found[3])
            with self._new_line:
                self.lines.append((time.monotonic(), line))
                self._new_line.notify_all()

    def mark(self):
        """A place in the log, for `since`."""
        return len(self.lines)

    def find(self, pattern, since=0):
        """All lines that match."""
        return [line for _, line in self.lines[since:] if re.search(pattern, line)]

    def wait_line(self, pattern, since=0, timeout=DEADLINE):
        """(time, line) of the first line that matches."""
        deadline = time.monotonic() + timeout
        at = since
        while True:
            with self._new_line:
                while at >= len(self.lines):
                    left = deadline - time.monotonic()
                    if left <= 0 or not self._new_line.wait(left):
                        raise AssertionError(f"waited {timeout:g} s for a log line {pattern!r}")
            if re.search(pattern, self.lines[at][1]):
                return self.lines[at]
            at += 1

    def wait_ready(self, since=0):
        def all_ready_or_dead():
            return self.process.poll() is not None or self.find(r"^\d+ ranks? ready", since)

        wait_until(all_ready_or_dead, "the fleet to become ready")
        if self.process.poll() is not None:
            raise AssertionError(f"the fleet ended with {self.process.returncode} before it was ready")
        wait_until(lambda: all(rank.port for rank in self.ranks), "the ports")

    def wait_whole(self):
        """All ranks ready, and the group complete for each."""
        def whole(rank):
            status, body = rank.readiness()
            return status == 200 and not body["degraded"]

        for rank in self.ranks:
            wait_until(lambda r=rank: whole(r), f"rank {rank.index} in a complete fleet", pause=0.02)

    # ---- end ----

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, timeout=DEADLINE):
        """The exit code."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the launcher still runs after {timeout:g} s") from None

    def drain(self, timeout=DEADLINE):
        self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def left_behind(self):
        return processes_naming(self.folder)

    def close(self, failed=False):
        failed = failed or "FLOTILLA_E2E_LINES" in os.environ
        if self.process.poll() is None:
            if not failed:
                self.signal(signal.SIGTERM)
                self.signal(signal.SIGTERM)
            try:
                self.process.wait(0.1 if failed else 20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for pid in self.left_behind():
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        if self.process.stdout is not None:
            self._reader.join(5)
            self.process.stdout.close()
        if failed:
            print("---- the fleet's last lines ----", file=sys.stderr)
            for _, line in self.lines[-int(os.environ.get("FLOTILLA_E2E_LINES", "80")):]:
                print(line[:400], file=sys.stderr)
        shutil.rmtree(self.folder, ignore_errors=True)
