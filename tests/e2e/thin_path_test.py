"""Two ranks, one pool of experts, and the death of one of them."""

import os
import signal
import unittest

from client import Streams, refuses, request
from fleet import Fleet, TIME_FACTOR, alive, reference_prompts, text_of, wait_until

MODEL = "ernie45-moe"
SAMPLED = {"prompt": [3, 1, 4, 1, 5], "max_tokens": 1500, "temperature": 1.0, "seed": 7,
           "ignore_eos": True, "return_token_ids": True}


class TwoRanks(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.fleet = Fleet(ranks=2, model=MODEL)
        cls.streams = Streams()

    @classmethod
    def tearDownClass(cls):
        cls.streams.__exit__()
        cls.fleet.close()

    def greedy(self, prompt, tokens, **more):
        return {"prompt": prompt, "max_tokens": len(tokens), "temperature": 0, "ignore_eos": True,
                "return_token_ids": True, **more}

    def test_completions_give_the_reference_tokens_whole_and_streamed_on_every_rank(self):
        for prompt, tokens in reference_prompts(MODEL):
            for rank in self.fleet:
                answer = request(rank.port, "/v1/completions", self.greedy(prompt, tokens))
                self.assertEqual(answer.status, 200, answer)
                choice = answer.json()["choices"][0]
                self.assertEqual(choice["token_ids"], tokens)
                self.assertEqual(choice["prompt_token_ids"], prompt)
                self.assertEqual(choice["text"], text_of(tokens))
                stream = self.streams.start(rank.port, self.greedy(prompt, tokens)).wait()
                self.assertTrue(stream.whole, stream.describe())
                self.assertEqual(stream.tokens, tokens)
                self.assertEqual(stream.text, text_of(tokens))
                self.assertEqual(stream.finish, "length")

    def test_chats_of_token_ids_give_the_reference_tokens_whole_and_streamed(self):
        for prompt, tokens in reference_prompts(MODEL)[:3]:
            body = {"messages": [{"role": "user", "content": "unused"}],
                    "prompt_token_ids": prompt, "max_tokens": len(tokens), "temperature": 0,
                    "ignore_eos": True, "return_token_ids": True}
            answer = request(self.fleet[0].port, "/v1/chat/completions", body)
            self.assertEqual(answer.status, 200, answer)
            message = answer.json()["choices"][0]["message"]
            self.assertEqual(message["completion_token_ids"], tokens)
            self.assertEqual(message["content"], text_of(tokens))
            stream = self.streams.start(self.fleet[1].port, body, path="/v1/chat/completions").wait()
            self.assertTrue(stream.whole, stream.describe())
            self.assertEqual(stream.text, text_of(tokens))

    def test_a_killed_rank_costs_its_own_clients_only_and_comes_back(self):
        fleet, streams = self.fleet, self.streams
        wait_until(lambda: all(rank.is_ready() for rank in fleet), "both ranks")
        reference = streams.start(fleet[0].port, SAMPLED).wait()
        self.assertTrue(reference.whole, reference.describe())

        survivors = [streams.start(fleet[0].port, SAMPLED) for _ in range(3)]
        lost = streams.start(fleet[1].port, SAMPLED)
        wait_until(lambda: all(s.events_seen > 100 for s in [*survivors, lost]), "streams under way")
        degraded_seen = refused_seen = False
        old_pid, mark = fleet[1].pid, fleet.mark()
        killed_at = fleet[1].kill()
        while not fleet.find("event=rank_ready rank=1", mark):
            refused_seen |= refuses(fleet[1].port)
            status, body = fleet[0].readiness()
            self.assertEqual(status, 200, "a survivor stays ready")
            degraded_seen |= body["degraded"]
        back_at, _ = fleet.wait_line("event=rank_ready rank=1", mark)

        for stream in survivors:
            stream.wait()
            self.assertTrue(stream.whole, stream.describe())
            self.assertEqual(stream.stream_errors, [])
            self.assertEqual(stream.tokens, reference.tokens)
            self.assertEqual(stream.text, reference.text)
        pause = max(s.longest_gap(since=killed_at) for s in survivors)
        print(f"longest pause after the death {pause * 1000:.0f} ms, "
              f"the rank was back after {(back_at - killed_at) * 1000:.0f} ms")
        self.assertLess(pause, 1.0 * TIME_FACTOR)

        lost.wait(5)
        self.assertFalse(lost.whole, "the dead rank's own stream breaks off")
        self.assertEqual(lost.tokens, reference.tokens[:len(lost.tokens)])
        self.assertTrue(refused_seen, "the lost rank's port refuses until it is back")
        self.assertTrue(degraded_seen, "survivors say that they are degraded")
        died = fleet.find("event=rank_died rank=1", mark)
        self.assertEqual(len(died), 1)
        self.assertIn(f"pid={old_pid}", died[0])
        self.assertIn("signal 9", died[0])

        fleet.wait_whole()
        self.assertEqual(fleet[0].gauge("flotilla_degraded"), 0)
        self.assertEqual(fleet[0].gauge("flotilla_rank_losses_total"), 1)
        self.assertNotEqual(fleet[1].pid, old_pid)
        again = [streams.start(rank.port, SAMPLED) for rank in fleet]
        for stream in again:
            self.assertEqual(stream.wait().tokens, reference.tokens, stream.describe())


class Launch(unittest.TestCase):
    def test_sigkill_of_the_launcher_leaves_no_process_and_the_next_start_clears_its_folder(self):
        with Fleet(ranks=3) as fleet:
            pids = fleet.pids()
            os.kill(fleet.pid, signal.SIGKILL)
            fleet.wait()
            wait_until(lambda: not any(alive(pid) for pid in pids), "all to die", 5)
            self.assertEqual(fleet.left_behind(), {})
            self.assertEqual(len(fleet.run_dirs()), 1, "the dead launcher could not clear its folder")
            self.assertEqual([n for n in os.listdir(fleet.folder) if n.endswith(".sock")], [])
            with Fleet(ranks=1, env={"XDG_RUNTIME_DIR": fleet.folder}) as second:
                self.assertEqual(len(fleet.run_dirs()), 1)
                self.assertIn(f"flotilla-{second.pid}-", fleet.run_dirs()[0])
            self.assertEqual(fleet.run_dirs(), [])

    def test_a_dense_model_is_served_by_ranks_that_need_nobody(self):
        with Fleet(ranks=2, model="llama") as fleet, Streams() as streams:
            prompt, tokens = reference_prompts("llama")[1]
            body = {"prompt": prompt, "max_tokens": 1500, "temperature": 0, "ignore_eos": True,
                    "return_token_ids": True}
            running = streams.start(fleet[0].port, body)
            wait_until(lambda: running.events_seen > 50, "a stream under way")
            mark = fleet.mark()
            fleet[1].kill()
            running.wait()
            self.assertEqual(running.tokens[:len(tokens)], tokens, running.describe())
            self.assertEqual(len(running.tokens), 1500)
            fleet.wait_line("event=rank_ready rank=1", mark)
            again = streams.start(fleet[1].port, body).wait()
            self.assertEqual(again.tokens, running.tokens)
            self.assertEqual(fleet.drain(), 0)
            self.assertEqual(fleet.left_behind(), {})
            self.assertEqual(fleet.run_dirs(), [])

    def test_a_second_fleet_on_the_same_ports_is_refused_by_name_of_the_holder(self):
        with Fleet(ranks=2, model="llama") as fleet:
            ports = ",".join(str(rank.port) for rank in fleet)
            second = Fleet(ranks=2, model="llama", launcher=["--ports", ports], wait=False)
            try:
                self.assertEqual(second.wait(), 3)
                log = "\n".join(line for _, line in second.lines)
                self.assertIn(str(fleet[0].port), log)
                self.assertIn("api_server", log)
                self.assertEqual(second.left_behind(), {})
            finally:
                second.close()
            self.assertTrue(all(rank.is_ready() for rank in fleet))


if __name__ == "__main__":
    unittest.main(verbosity=2)
