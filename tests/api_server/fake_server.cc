// The real API over a scripted engine, for clients in other languages
// (tests/e2e/openai_client_test.py --fake).
//
//   fake_server [--port N] [--api-key KEY]      prints "PORT n" and serves until its stdin ends
//
// A prompt is answered with "You said: …" and its last line. Some last lines make trouble instead:
//   "fail CODE"      the engine refuses with the status code of this name ("unavailable", …)
//   "fail once ID"   refuses with "unavailable", but only the first time that this ID is seen
//   "break"          fails after a few tokens
//   "talk"           goes on until max_tokens, slowly
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <mutex>
#include <set>
#include <string>

#include "api_server/app.h"
#include "api_server/http/listen_socket.h"
#include "tests/fakes/byte_tokenizer.h"
#include "tests/fakes/fake_dispatcher.h"

namespace flotilla {
namespace {

constexpr std::string_view kTemplate =
    "{%- for m in messages -%}{{- m.content + '\n' -}}{%- endfor -%}";

// The last line of a prompt that is not empty.
std::string command_of(const GenerationRequest& request) {
  std::string text;
  for (const TokenId id : request.prompt) {
    if (id < 256) text += static_cast<char>(id);
  }
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text.substr(text.rfind('\n') + 1);
}

FakeScript script_of(const GenerationRequest& request) {
  const std::string command = command_of(request);
  FakeScript script;
  script.cached_tokens = 1;
  if (command == "talk") {
    script.tokens = byte_ids("blah ");
    script.endless = true;
  } else if (command == "break") {
    script.tokens = byte_ids("almost");
    script.finish = FinishReason::kError;
    script.error = unavailable("the rank was lost");
  } else {
    script.tokens = byte_ids("You said: " + command);
    script.stop_token = kByteEos;
  }
  return script;
}

Status refusal_of(const GenerationRequest& request) {
  static std::mutex mutex;
  static std::set<std::string> seen;
  const std::string command = command_of(request);
  if (!command.starts_with("fail ")) return ok_status();
  const std::string what = command.substr(5);
  if (what.starts_with("once ")) {
    std::lock_guard lock(mutex);
    return seen.insert(what).second ? unavailable("not yet") : ok_status();
  }
  for (int code = 1; code <= static_cast<int>(StatusCode::kInternal); ++code) {
    const auto status = static_cast<StatusCode>(code);
    if (to_string(status) == what) return {status, "as you wished"};
  }
  return invalid_argument("there is no status code '" + what + "'");
}

int run(int argc, char** argv) {
  AppOptions options;
  options.serving.model = "fake-model";
  uint16_t port = 0;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string flag = argv[i];
    if (flag == "--port") port = static_cast<uint16_t>(std::atoi(argv[i + 1]));
    if (flag == "--api-key") options.api_keys.push_back(argv[i + 1]);
  }
  MetricsRegistry registry(MetricLabels{{"model_name", "fake-model"}, {"dp_rank", "0"}});
  FakeDispatcher dispatcher(script_of);
  dispatcher.on_submit = [](const GenerationRequest& r, uint64_t) { return refusal_of(r); };
  const auto tokenizer = make_byte_tokenizer();
  const auto chat_template = ChatTemplate::from_text(kTemplate, tokenizer->config()).value();
  App app({.dispatcher = dispatcher,
           .tokenizer = tokenizer.get(),
           .chat_template = chat_template.get(),
           .registry = registry},
          options);
  HttpServer server(app_http_options(&app));
  register_routes(server, app);
  auto socket = listen_on("127.0.0.1", port);
  if (!socket.ok() || !server.start(std::move(socket).value()).ok()) {
    std::fprintf(stderr, "fake_server: cannot listen on port %d\n", port);
    return 1;
  }
  dispatcher.start_stepping(std::chrono::milliseconds(2));
  std::printf("PORT %d\n", server.port());
  std::fflush(stdout);
  while (std::cin.get() != EOF) {
  }
  dispatcher.stop_stepping();
  server.stop(std::chrono::steady_clock::now());
  return 0;
}

}  // namespace
}  // namespace flotilla

int main(int argc, char** argv) { return flotilla::run(argc, argv); }
