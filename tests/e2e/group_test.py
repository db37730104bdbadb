"""Who may be in the group: equal settings only, and what a fleet does about ranks that are lost for
longer or for ever."""

import json
import os
import shutil
import signal
import subprocess
import time
import unittest

from client import Streams
from fleet import (BIN, GAVE_UP, REFUSED, TIME_FACTOR, Fleet, alive, model_dir, wait_until)
from load import BODIES, Load

BODY = {**BODIES[0], "max_tokens": 1800}


class Differences(unittest.TestCase):
    def start_by_hand(self, fleet, rank, *flags):
        """A rank of the user's own on the fleet's clock. (exit code, output)."""
        run_dir = os.path.join(fleet.folder, fleet.run_dirs()[0])
        command = [os.path.join(BIN, "api_server"), "--model", model_dir("ernie45-moe"),
                   "--activation-dtype", "f32", "--enable-expert-parallel",
                   "--data-parallel-size", "2", "--port", "0",
                   "--local-data-parallel-id", str(rank), "--run-dir", run_dir,
                   "--clock-address", f"unix:{run_dir}/clock.sock", *flags]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout + done.stderr

    def test_a_rank_with_another_flag_is_refused_by_name_and_values_and_harms_nobody(self):
        with Fleet(ranks=2) as fleet, Streams() as streams:
            running = [streams.start(rank.port, BODY) for rank in fleet]
            wait_until(lambda: all(s.events_seen > 20 for s in running), "streams under way")
            for flags, name, values in (
                    (["--max-model-len", "512"], "--max-model-len", ["'512'", "'auto'"]),
                    (["--activation-dtype", "bf16"], "--activation-dtype", ["'BF16'", "'F32'"]),
                    (["--model", model_dir("qwen3-moe")], "model digest", ["'"]),
                    (["--cpu-isa", "avx2"], "--cpu-isa", ["'avx2'"])):
                code, output = self.start_by_hand(fleet, 1, *flags)
                self.assertEqual(code, REFUSED, output)
                self.assertIn(name, output)
                for value in values:
                    self.assertIn(value, output)
            code, output = self.start_by_hand(fleet, 2, "--data-parallel-size", "3")
            self.assertEqual(code, REFUSED, output)
            self.assertIn("rank 2 of a fleet of 2 ranks", output)
            for stream in running:
                self.assertTrue(stream.wait().whole, stream.describe())
            self.assertEqual(running[0].tokens, running[1].tokens)
            self.assertEqual(fleet.find("rank_died|epoch=2"), [])

    def test_a_model_changed_under_a_running_fleet_ends_it_when_a_rank_restarts(self):
        with Fleet(ranks=1, wait=False, model=None, args=["--engine", "null"],
                   expert_parallel=False, tokenizer=False) as scratch:
            copy = os.path.join(scratch.folder, "model")
            shutil.copytree(model_dir("ernie45-moe"), copy)
            with Fleet(ranks=3, model=copy) as fleet:
                with open(os.path.join(copy, "config.json")) as file:
                    config = json.load(file)
                config["rms_norm_eps"] = 2e-5
                with open(os.path.join(copy, "config.json"), "w") as file:
                    json.dump(config, file)
                mark = fleet.mark()
                fleet[1].kill()
                self.assertEqual(fleet.wait(), REFUSED)
                refused = fleet.find("event=rank_refused rank=1", mark)
                self.assertEqual(len(refused), 1)
                self.assertIn("model digest", refused[0])
                self.assertEqual(fleet.left_behind(), {})


class LossesForLonger(unittest.TestCase):
    def lose_for_a_second(self, fleet, rank):
        """An early death: the rank is started again a second later."""
        mark = fleet.mark()
        fleet[rank].kill()
        fleet.wait_line(f"event=rank_restart rank={rank} .*in_s=1", mark)
        return mark

    def test_on_rank_loss_wait_pauses_streams_until_the_rank_is_back_and_alters_nothing(self):
        with Fleet(ranks=2, args=["--on-rank-loss", "wait"]) as fleet, Streams() as streams:
            running = [streams.start(fleet[0].port, BODY) for _ in range(2)]
            wait_until(lambda: all(s.events_seen > 20 for s in running), "streams under way")
            mark = self.lose_for_a_second(fleet, 1)
            status, body = wait_until(
                lambda: (lambda r: r if r[0] == 503 else None)(fleet[0].readiness()),
                "the survivor to say that it is not ready")
            self.assertEqual(body["status"], "paused")
            self.assertIn("lost rank", body["detail"])
            seen = [s.events_seen for s in running]
            self.assertIsNone(fleet.process.poll())
            late = streams.start(fleet[0].port, BODY)  # waits with the others
            fleet.wait_line("event=rank_ready rank=1 ", mark)
            wait_until(fleet[0].is_ready, "the survivor to be ready")
            for stream in [*running, late]:
                self.assertTrue(stream.wait().whole, stream.describe())
            self.assertEqual(running[0].tokens, running[1].tokens)
            self.assertEqual(late.tokens, running[0].tokens)
            self.assertGreater(running[0].longest_gap(), 0.8, "it stood still")
            self.assertGreater(min(len(s.tokens) for s in running), max(seen), "not over before")
            self.assertEqual(fleet[0].gauge("flotilla_degraded"), 0)

    def test_on_rank_loss_continue_goes_on_degraded_for_as_long_as_the_rank_is_away(self):
        with Fleet(ranks=2) as fleet, Streams() as streams:
            reference = streams.start(fleet[0].port, BODY).wait().tokens
            mark = self.lose_for_a_second(fleet, 1)
            status, body = fleet[0].readiness()
            self.assertEqual(status, 200)
            wait_until(lambda: fleet[0].readiness()[1]["degraded"], "degraded to be said")
            self.assertEqual(fleet[0].gauge("flotilla_degraded"), 1)
            self.assertEqual(fleet[0].gauge("flotilla_ranks_alive"), 1)
            stream = streams.start(fleet[0].port, BODY).wait()
            self.assertEqual(stream.tokens, reference)
            self.assertEqual(fleet.find("event=rank_ready rank=1 ", mark), [], "it ended meanwhile")
            fleet.wait_line("event=rank_ready rank=1 ", mark)
            fleet.wait_whole()

    def test_a_rank_that_always_dies_early_ends_the_fleet_loudly_after_whole_streams(self):
        with Fleet(ranks=2) as fleet, Streams() as streams:
            reference = streams.start(fleet[0].port, BODY).wait().tokens
            for early_deaths in range(1, 6):
                mark = fleet.mark()
                if early_deaths == 5:
                    last = streams.start(fleet[0].port, BODY)
                    wait_until(lambda: last.events_seen > 5, "a last stream")
                fleet[1].kill()
                if early_deaths < 5:
                    fleet.wait_line(f"event=rank_restart rank=1 early_deaths={early_deaths}", mark)
                    fleet.wait_line("rank 1: starting", mark)
            self.assertEqual(fleet.wait(), GAVE_UP)
            self.assertTrue(last.wait().whole, last.describe())
            self.assertEqual(last.tokens, reference)
            said = fleet.find("event=fleet_ends")
            self.assertEqual(len(said), 1)
            self.assertIn("5 times in a row", said[0])
            self.assertIn("signal 9", said[0])
            self.assertEqual(fleet.left_behind(), {})


class BrokenModels(unittest.TestCase):
    def damaged(self, folder, damage):
        copy = os.path.join(folder, "model")
        shutil.copytree(model_dir("ernie45-moe"), copy)
        damage(copy)
        return copy

    def test_a_model_that_no_rank_can_load_ends_the_fleet_at_once_and_says_what_is_wrong(self):
        def wrong_shape(copy):
            path = os.path.join(copy, "config.json")
            with open(path) as file:
                config = json.load(file)
            config["moe_intermediate_size"] = 96
            with open(path, "w") as file:
                json.dump(config, file)

        def lost_shard(copy):
            os.unlink(os.path.join(copy, "model-00002-of-00003.safetensors"))

        for damage, words in ((wrong_shape, "shape"), (lost_shard, "model-00002-of-00003")):
            with Fleet(ranks=2, model=None, wait=False, args=["--engine", "null"], tokenizer=False,
                       expert_parallel=False) as scratch:
                copy = self.damaged(scratch.folder, damage)
                begin = time.monotonic()
                fleet = Fleet(ranks=2, model=copy, wait=False)
                try:
                    self.assertEqual(fleet.wait(20), 2)
                    self.assertLess(time.monotonic() - begin, 8 * TIME_FACTOR)
                    self.assertTrue(fleet.find(words), "the log names what is wrong")
                    self.assertEqual(fleet.find("signal 6"), [], "it ends in order")
                finally:
                    fleet.close()


if __name__ == "__main__":
    unittest.main(verbosity=2)
