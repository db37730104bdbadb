"""Greedy and seeded answers are bit-equal, log probabilities included, whoever computes them with
whom: ranks, load, chunks, prefix cache, preemption and threads change nothing."""

import json
import threading
import unittest

from client import Streams, request
from fleet import Fleet, wait_until
from load import BODIES

LONG = [i * 7 % 1000 + 10 for i in range(900)]


def questions(limit):
    """Bodies whose prompt is no longer than `limit` tokens."""
    common = {"ignore_eos": True, "return_token_ids": True, "logprobs": 5}
    seeded = {"temperature": 1.0, "seed": 42}
    all_of_them = [
        {"prompt": [5], "max_tokens": 40, "temperature": 0},
        {"prompt": LONG[:37], "max_tokens": 80, "temperature": 0},
        {"prompt": LONG[:300], "max_tokens": 40, **seeded, "top_k": 40, "top_p": 0.9},
        {"prompt": LONG[:64], "max_tokens": 70, **seeded, "n": 3},
        {"prompt": LONG[50:250], "max_tokens": 60, **seeded, "min_p": 0.01,
         "repetition_penalty": 1.2, "presence_penalty": 0.4, "frequency_penalty": 0.3},
        {"prompt": LONG, "max_tokens": 30, "temperature": 0},
        {"prompt": LONG[:130], "max_tokens": 20, **seeded, "echo": True},
        {"prompt": LONG[:65], "max_tokens": 50, **seeded, "logit_bias": {"300": 4.0},
         "bad_words_token_ids": [LONG[3]], "min_tokens": 10},
    ]
    all_of_them += [{"prompt": LONG[i:i + 9], "max_tokens": 350, **seeded, "logprobs": 1}
                    for i in range(3)]
    return [{**common, **body} for body in all_of_them if len(body["prompt"]) <= limit]


def ask(port, body):
    """All that has to be equal, as text: no rounding hides a bit."""
    answer = request(port, "/v1/completions", body, timeout=300)
    if answer.status != 200:
        raise AssertionError(f"{answer} to {body}")
    parsed = answer.json()
    return (json.dumps([[c["token_ids"], c["logprobs"], c["text"], c["finish_reason"]]
                        for c in parsed["choices"]]),
            parsed["usage"]["prompt_tokens_details"]["cached_tokens"])


class Exactness(unittest.TestCase):
    model, activation, limit = "ernie45-moe", "f32", 2000
    expected = None

    @classmethod
    def setUpClass(cls):
        if cls is Exactness:
            raise unittest.SkipTest("a base")
        cls.questions = questions(cls.limit)
        with cls.fleet(1, ["--num-threads", "1", "--no-enable-prefix-caching"],
                       expert_parallel=False) as fleet:
            cls.expected = [ask(fleet[0].port, body)[0] for body in cls.questions]

    @classmethod
    def fleet(cls, ranks, args=(), **more):
        return Fleet(ranks=ranks, model=cls.model, activation=cls.activation, args=args, **more)

    def check(self, index, got, where):
        if got != self.expected[index]:
            a, b = json.loads(got), json.loads(self.expected[index])
            for choice, (x, y) in enumerate(zip(a, b)):
                self.assertEqual(x[0], y[0], f"tokens of question {index}.{choice}, {where}")
                self.assertEqual(x, y, f"log probabilities of question {index}.{choice}, {where}")
            self.assertEqual(a, b)

    def ask_alone(self, fleet, ranks, where, cached=None):
        for rank in ranks:
            for index, body in enumerate(self.questions):
                got, cached_tokens = ask(fleet[rank].port, body)
                self.check(index, got, f"{where}, alone on rank {rank}")
                if cached and "echo" not in body and len(body["prompt"]) > cached:
                    self.assertGreater(cached_tokens, 0, "the prefix cache was to be hit")

    def ask_at_once(self, fleet, where, background=True, longest=10_000):
        """Everything on all ranks at the same time, among streams of other requests. `longest`:
        prompt and answer together."""
        results, errors = [], []

        def one(rank, index, body):
            try:
                results.append((index, rank, ask(rank.port, body)[0]))
            except Exception as error:  # told by the main thread
                errors.append(error)

        with Streams() as streams:
            if background:
                others = [streams.start(rank.port, body) for rank in fleet for body in BODIES[:2]]
                wait_until(lambda: all(s.events_seen > 0 for s in others), "the load")
            threads = [threading.Thread(target=one, args=(rank, index, body))
                       for rank in fleet for index, body in enumerate(self.questions)
                       if len(body["prompt"]) + body["max_tokens"] <= longest]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        self.assertEqual(errors, [])
        self.assertEqual(len(results), len(threads))
        for index, rank, got in results:
            self.check(index, got, f"{where}, under load on rank {rank.index}")

    def prove(self, ranks, args=(), alone=(0,), cached=None, where=None):
        where = where or f"{ranks} ranks {' '.join(args)}"
        with self.fleet(ranks, args) as fleet:
            self.ask_alone(fleet, alone, where)
            self.ask_at_once(fleet, where)
            if cached:
                self.ask_alone(fleet, alone, where + ", again", cached)


class F32(Exactness):
    def test_two_ranks_with_prefix_hits(self):
        self.prove(2, alone=(1,), cached=129)

    def test_three_ranks_in_chunks_of_48_tokens(self):
        self.prove(3, ["--max-num-batched-tokens", "48", "--max-num-seqs", "24"], alone=(2,))

    def test_four_ranks_with_small_blocks_and_prefix_hits(self):
        self.prove(4, ["--block-size", "16", "--max-num-seqs", "32"], cached=64)

    def test_eight_ranks(self):
        self.prove(8, ["--max-num-seqs", "16"], alone=(0, 5, 7))

    def test_one_rank_on_three_threads_without_experts_spread(self):
        with self.fleet(1, ["--num-threads", "3"], expert_parallel=False) as fleet:
            self.ask_alone(fleet, (0,), "three threads", cached=None)
            self.ask_at_once(fleet, "three threads")

    def test_two_ranks_on_two_threads_each_over_tcp(self):
        self.prove(2, ["--num-threads", "2", "--mesh-transport", "tcp"])

    def test_preempted_sequences_of_two_ranks_with_a_pool_that_holds_one_or_two(self):
        args = ["--num-gpu-blocks-override", "24", "--block-size", "16", "--max-num-seqs", "32",
                "--max-num-batched-tokens", "128", "--max-model-len", "384"]
        with self.fleet(2, args) as fleet:
            for _ in range(2):
                self.ask_at_once(fleet, "a tiny pool", background=False, longest=384)
            preempted = sum(rank.gauge("vllm:num_preemptions_total") for rank in fleet)
            print(f"\n  {preempted:.0f} preemptions")
            self.assertGreater(preempted, 5)

    def test_a_kill_between_the_tokens_of_a_whole_answer(self):
        with self.fleet(3) as fleet:
            wait_until(lambda: fleet[0].is_ready(), "rank 0")
            for index, body in enumerate(self.questions):
                results = []
                asking = threading.Thread(
                    target=lambda b=body: results.append(ask(fleet[0].port, b)[0]))
                asking.start()
                if index in (1, 4):
                    wait_until(lambda: fleet[0].gauge("fastdeploy:num_requests_running") or results,
                               "the request to run", pause=0)
                    fleet[1 if index == 1 else 2].kill()
                asking.join()
                self.check(index, results[0], "through a kill")


class Bf16(Exactness):
    activation = "bf16"

    def test_two_ranks_in_chunks_of_48_tokens(self):
        self.prove(2, ["--max-num-batched-tokens", "48", "--max-num-seqs", "24"], cached=129)

    def test_four_ranks_on_two_threads_each(self):
        self.prove(4, ["--max-num-seqs", "32", "--num-threads", "2"], alone=(3,))


class Qwen3(Exactness):
    model = "qwen3-moe"

    def test_three_ranks(self):
        self.prove(3, ["--max-num-batched-tokens", "100", "--max-num-seqs", "24"], alone=(1,))


class Fp8Paddle(Exactness):
    model = "ernie45-moe-fp8-paddle"

    def test_two_ranks(self):
        self.prove(2)


if __name__ == "__main__":
    unittest.main(verbosity=2)
