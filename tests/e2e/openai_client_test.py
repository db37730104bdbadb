"""The official OpenAI client against a server, unmodified: sync, async, streams, raw responses, errors and retries.

    openai_client_test.py BASE_URL [--api-key KEY] [--model NAME]      a running server ("http://127.0.0.1:8000/v1")
    openai_client_test.py --fake FAKE_SERVER                           starts tests/api_server/fake_server, and checks what
                                                                       needs a scripted engine too

Needs the package openai 2.x (tools/dev/python_venv "openai>=2,<3"). Ends with 0 if all holds; each failure is printed.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
import traceback
import urllib.request

import openai

HI = [{"role": "user", "content": "Hi! Who are you?"}]


class Checks:
    """What holds for any server with any model; `self.fake` adds what needs the scripted engine."""

    def __init__(self, base_url, api_key, model, fake):
        self.base_url, self.api_key, self.model, self.fake = base_url, api_key, model, fake
        self.root = base_url.rsplit("/v1", 1)[0]
        self.client = self.make(openai.OpenAI)

    def make(self, kind, **kwargs):
        kwargs.setdefault("api_key", self.api_key)
        kwargs.setdefault("timeout", 60)
        return kind(base_url=self.base_url, **kwargs)

    def chat(self, messages=None, **kwargs):
        kwargs.setdefault("max_tokens", 16)
        return self.client.chat.completions.create(model=self.model, messages=HI if messages is None else messages, **kwargs)

    # Models.

    def check_models(self):
        models = self.client.models.list()
        assert models.data and models.data[0].object == "model"
        assert self.client.models.retrieve(self.model).id == self.model

    # Chat.

    def check_chat(self):
        answer = self.chat()
        assert answer.object == "chat.completion" and answer.id.startswith("chatcmpl-")
        assert abs(answer.created - time.time()) < 60
        choice = answer.choices[0]
        assert choice.index == 0 and choice.message.role == "assistant"
        assert isinstance(choice.message.content, str) and choice.message.refusal is None
        assert choice.finish_reason in ("stop", "length") and choice.logprobs is None
        usage = answer.usage
        assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
        assert 1 <= usage.completion_tokens <= 16
        assert usage.prompt_tokens_details.cached_tokens >= 0
        assert answer._request_id

    def check_chat_is_the_same_with_the_same_seed(self):
        texts = {self.chat(seed=7, temperature=1.0).choices[0].message.content for _ in range(3)}
        assert len(texts) == 1, texts

    def check_chat_choices(self):
        answer = self.chat(n=3, seed=1, temperature=1.0)
        assert [c.index for c in answer.choices] == [0, 1, 2]

    def check_chat_contents(self):
        parts = [{"type": "text", "text": "Hi!"}]
        self.chat([{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts},
                   {"role": "assistant", "content": None}, {"role": "user", "content": "Go on."}])

    def check_chat_logprobs(self):
        answer = self.chat(logprobs=True, top_logprobs=2, temperature=0)
        content = answer.choices[0].logprobs.content
        assert content and answer.choices[0].logprobs.refusal is None
        for entry in content:
            assert entry.logprob <= 0 and len(entry.top_logprobs) == 2
        text = b"".join(bytes(e.bytes or []) for e in content)
        assert text.decode(errors="replace") == answer.choices[0].message.content

    def check_chat_stop(self):
        whole = self.chat(temperature=0, max_tokens=24).choices[0].message.content
        if len(whole) < 4:
            return
        stop = whole[2:4]
        answer = self.chat(temperature=0, max_tokens=24, stop=[stop])
        assert answer.choices[0].message.content == whole[:whole.index(stop)]
        assert answer.choices[0].finish_reason == "stop"

    def check_chat_stream(self):
        whole = self.chat(seed=3)
        text, reasons, ids, usage = "", [], set(), None
        with self.chat(seed=3, stream=True, stream_options={"include_usage": True}) as stream:
            for chunk in stream:
                ids.add(chunk.id)
                assert chunk.object == "chat.completion.chunk"
                if not chunk.choices:
                    assert usage is None
                    usage = chunk.usage
                    continue
                assert usage is None and chunk.usage is None
                text += chunk.choices[0].delta.content or ""
                if chunk.choices[0].finish_reason:
                    reasons.append(chunk.choices[0].finish_reason)
        assert text == whole.choices[0].message.content
        assert reasons == [whole.choices[0].finish_reason]
        assert len(ids) == 1
        assert usage.completion_tokens == whole.usage.completion_tokens

    def check_chat_stream_without_usage(self):
        chunks = list(self.chat(stream=True))
        assert chunks[0].choices[0].delta.role == "assistant"
        assert all(chunk.choices and chunk.usage is None for chunk in chunks)

    def check_chat_stream_helper(self):
        with self.client.chat.completions.stream(model=self.model, messages=HI, max_tokens=8) as stream:
            for _ in stream:
                pass
            try:
                final = stream.get_final_completion()
            except openai.LengthFinishReasonError as error:  # this helper's way to say "length"
                final = error.completion
            assert final.choices[0].message.content is not None

    def check_extensions(self):
        answer = self.chat(extra_body={"return_token_ids": True, "top_k": 5, "min_p": 0.0, "repetition_penalty": 1.0})
        assert answer.choices[0].token_ids and answer.prompt_token_ids
        assert answer.choices[0].message.completion_token_ids == answer.choices[0].token_ids
        assert len(answer.choices[0].token_ids) == answer.usage.completion_tokens

    def check_unknown_and_null_fields(self):
        self.chat(extra_body={"no_such_field": {"a": [1]}, "stop": None, "tools": [], "tool_choice": "none"})

    # Completions.

    def check_completions(self):
        answer = self.client.completions.create(model=self.model, prompt=["One, two,", "A, B,"], n=2, max_tokens=4)
        assert answer.object == "text_completion" and answer.id.startswith("cmpl-")
        assert [c.index for c in answer.choices] == [0, 1, 2, 3]
        assert all(c.finish_reason in ("stop", "length") for c in answer.choices)

    def check_completions_echo_and_logprobs(self):
        answer = self.client.completions.create(model=self.model, prompt="One, two,", echo=True, logprobs=1, max_tokens=3)
        choice = answer.choices[0]
        assert choice.text.startswith("One, two,")
        logprobs = choice.logprobs
        assert logprobs.token_logprobs[0] is None and logprobs.text_offset[0] == 0
        assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.top_logprobs)

    def check_completions_stream(self):
        arguments = dict(model=self.model, prompt="One, two,", max_tokens=8, seed=5)
        whole = self.client.completions.create(**arguments)
        text = "".join(c.choices[0].text for c in self.client.completions.create(stream=True, **arguments))
        assert text == whole.choices[0].text

    def check_completions_of_token_ids(self):
        ids = json.load(self.post("/tokenize", {"prompt": "One, two,", "model": self.model}))["tokens"]
        by_ids = self.client.completions.create(model=self.model, prompt=ids, temperature=0, max_tokens=4)
        by_text = self.client.completions.create(model=self.model, prompt="One, two,", temperature=0, max_tokens=4)
        assert by_ids.choices[0].text == by_text.choices[0].text

    def post(self, path, body):
        request = urllib.request.Request(self.root + path, json.dumps(body).encode(),
                                         {"Content-Type": "application/json", "Authorization": f"Bearer {self.api_key}"})
        return urllib.request.urlopen(request, timeout=60)

    # Async, raw.

    def check_async(self):
        async def run():
            async with self.make(openai.AsyncOpenAI) as client:
                whole = await client.chat.completions.create(model=self.model, messages=HI, seed=3, max_tokens=16)

                async def stream():
                    text = ""
                    async for chunk in await client.chat.completions.create(
                            model=self.model, messages=HI, seed=3, max_tokens=16, stream=True):
                        text += chunk.choices[0].delta.content or ""
                    return text

                texts = await asyncio.gather(*(stream() for _ in range(8)))
                assert set(texts) == {whole.choices[0].message.content}, texts

        asyncio.run(run())

    def check_raw_response(self):
        raw = self.client.chat.completions.with_raw_response.create(
            model=self.model, messages=HI, max_tokens=4, extra_headers={"X-Request-Id": "from-the-test"})
        assert raw.status_code == 200
        assert raw.headers["x-request-id"] == "from-the-test"
        assert raw.parse().id == "chatcmpl-from-the-test"
        with self.client.chat.completions.with_streaming_response.create(
                model=self.model, messages=HI, max_tokens=4, stream=True) as response:
            lines = [line for line in response.iter_lines() if line]
        assert all(line.startswith("data: ") for line in lines) and lines[-1] == "data: [DONE]"

    # Errors.

    def expect(self, kind, call, **wanted):
        try:
            call()
        except kind as error:
            for name, value in wanted.items():
                assert getattr(error, name) == value, f"{name}: {getattr(error, name)!r}, expected {value!r}"
            return error
        raise AssertionError(f"no {kind.__name__}")

    def check_bad_requests(self):
        bad = openai.BadRequestError
        self.expect(bad, lambda: self.chat(temperature=-1), param="temperature", type="invalid_request_error")
        self.expect(bad, lambda: self.chat([]), param="messages")
        self.expect(bad, lambda: self.chat(n=0), param="n", code="invalid_value")
        self.expect(bad, lambda: self.chat([{"role": "king", "content": "x"}]), param="messages[0].role")
        self.expect(bad, lambda: self.chat(tools=[{"type": "function", "function": {"name": "f"}}]), param="tools")
        self.expect(bad, lambda: self.chat(response_format={"type": "json_object"}), param="response_format")
        self.expect(bad, lambda: self.chat([{"role": "user", "content": "x " * 2_000_000}]), code="context_length_exceeded")

    def check_unknown_model(self):
        self.expect(openai.NotFoundError,
                    lambda: self.client.chat.completions.create(model="no-such-model", messages=HI),
                    code="model_not_found", param="model")

    def check_wrong_key(self):
        if self.api_key == "none":
            return
        stranger = self.make(openai.OpenAI, api_key="wrong")
        self.expect(openai.AuthenticationError, lambda: stranger.models.list())

    def check_a_closed_stream_frees_its_place(self):
        stream = self.chat(stream=True, max_tokens=1000)
        next(iter(stream))
        stream.close()
        deadline = time.time() + 10
        while json.load(urllib.request.urlopen(self.root + "/load", timeout=10))["server_load"] > 0:
            assert time.time() < deadline, "the sequence of a closed stream still runs"
            time.sleep(0.02)

    # With the scripted engine.

    def say(self, text, client=None, **kwargs):
        return (client or self.client).chat.completions.create(
            model=self.model, messages=[{"role": "user", "content": text}], **kwargs)

    def check_fake_error_classes(self):
        once = self.make(openai.OpenAI, max_retries=0)
        for code, kind, status in (("resource exhausted", openai.RateLimitError, 429),
                                   ("unavailable", openai.InternalServerError, 503),
                                   ("internal error", openai.InternalServerError, 500),
                                   ("not in this version", openai.InternalServerError, 501),
                                   ("invalid argument", openai.BadRequestError, 400)):
            self.expect(kind, lambda: self.say("fail " + code, once), status_code=status)
            self.expect(kind, lambda: self.say("fail " + code, once, stream=True), status_code=status)

    def check_fake_retries(self):
        # 503 says when to come back; the client does, unseen.
        begin = time.time()
        assert self.say("fail once a").choices[0].message.content == "You said: fail once a"
        assert time.time() - begin >= 0.9, "Retry-After was not obeyed"
        # 500 says not to: one attempt only, though the client would retry by itself.
        before = self.served(500)
        self.expect(openai.InternalServerError, lambda: self.say("fail internal error"))
        deadline = time.time() + 10
        while self.served(500) == before and time.time() < deadline:
            time.sleep(0.01)
        assert self.served(500) == before + 1

    def served(self, status):
        text = urllib.request.urlopen(self.root + "/metrics", timeout=10).read().decode()
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines()
                   if line.startswith("http_requests_total") and f'status_code="{status}"' in line)

    def check_fake_error_inside_a_stream(self):
        text = ""
        try:
            for chunk in self.say("break", stream=True):
                text += chunk.choices[0].delta.content or ""
        except openai.APIError as error:
            assert "the rank was lost" in str(error)
        else:
            raise AssertionError("the error inside the stream was not raised")
        assert text == "almost"

    def check_fake_text(self):
        answer = self.say("Grüße 🙂", max_tokens=100)
        assert answer.choices[0].message.content == "You said: Grüße 🙂"
        assert answer.choices[0].finish_reason == "stop"
        assert self.say("talk", max_tokens=7).choices[0].message.content == "blah bl"

    def run(self):
        failures = 0
        for name in dir(self):
            if not name.startswith("check_") or (name.startswith("check_fake_") and not self.fake):
                continue
            try:
                getattr(self, name)()
                print(f"ok      {name[6:]}", flush=True)
            except Exception:
                failures += 1
                print(f"FAILED  {name[6:]}\n{traceback.format_exc()}", flush=True)
        return failures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base_url", nargs="?")
    parser.add_argument("--api-key", default="none")
    parser.add_argument("--model", default="default")
    parser.add_argument("--fake", metavar="FAKE_SERVER")
    options = parser.parse_args()
    if bool(options.base_url) == bool(options.fake):
        parser.error("give a base URL or --fake")
    if not options.fake:
        return 1 if Checks(options.base_url, options.api_key, options.model, False).run() else 0
    with subprocess.Popen([options.fake, "--api-key", "secret"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True) as server:
        port = int(server.stdout.readline().split()[1])
        failures = Checks(f"http://127.0.0.1:{port}/v1", "secret", "fake-model", True).run()
        server.stdin.close()
        if server.wait(timeout=30) != 0:
            print(f"FAILED  the server ended with {server.returncode}")
            failures += 1
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
