// `flotilla chat` against a scripted server.
#include <doctest/doctest.h>

#include <httplib.h>
#include <pty.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <functional>
#include <string>
#include <thread>

#include "common/json.h"
#include "tools/cli/chat_client.h"

using namespace flotilla;
using namespace flotilla::cli;

namespace {

std::string delta(const std::string& text) {
  std::string event = "data: {\"choices\":[{\"delta\":{\"content\":";
  append_json_string(&event, text);
  return event + "},\"finish_reason\":null}]}\n\n";
}

constexpr const char* kEnd =
    "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"
    "data: {\"choices\":[],\"usage\":{\"completion_tokens\":3}}\n\n"
    "data: [DONE]\n\n";

// Answers every chat with the given bytes, cut into pieces as they are in the list.
class ScriptedServer {
 public:
  explicit ScriptedServer(std::vector<std::string> pieces)
      : ScriptedServer([pieces](const httplib::Request&, httplib::Response& response) {
          response.set_header("X-Data-Parallel-Rank", "5");
          response.set_chunked_content_provider("text/event-stream",
                                                [pieces](size_t, httplib::DataSink& sink) {
                                                  for (const std::string& piece : pieces)
                                                    sink.write(piece.data(), piece.size());
                                                  sink.done();
                                                  return true;
                                                });
        }) {}
  explicit ScriptedServer(httplib::Server::Handler handler) {
    server_.Post("/v1/chat/completions",
                 [this, handler](const httplib::Request& request, httplib::Response& response) {
                   bodies.push_back(request.body);
                   authorization = request.get_header_value("Authorization");
                   rank = request.get_header_value("X-Data-Parallel-Rank");
                   handler(request, response);
                 });
    port_ = server_.bind_to_any_port("127.0.0.1");
    thread_ = std::thread([this] { server_.listen_after_bind(); });
    server_.wait_until_ready();
  }
  ~ScriptedServer() {
    server_.stop();
    thread_.join();
  }

  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }

  std::vector<std::string> bodies;
  std::string authorization, rank;

 private:
  httplib::Server server_;
  std::thread thread_;
  int port_ = 0;
};

StatusOr<ChatAnswer> ask(ChatOptions options, std::vector<std::string>* pieces = nullptr) {
  auto client = ChatClient::create(std::move(options));
  REQUIRE(client.ok());
  return client->ask({{"user", "hi"}}, [&](std::string_view text) {
    if (pieces) pieces->emplace_back(text);
  });
}

Status failure(const ScriptedServer& server) {
  const auto answer = ask({.url = server.url()});
  REQUIRE(!answer.ok());
  return answer.status();
}

struct Run {
  int code;
  std::string output;
};

// Through a shell; both streams unless the command says otherwise.
Run run(const std::string& command) {
  std::FILE* pipe = ::popen(command.c_str(), "r");
  REQUIRE(pipe != nullptr);
  Run result{0, {}};
  char buffer[4096];
  while (const size_t n = std::fread(buffer, 1, sizeof buffer, pipe)) {
    result.output.append(buffer, n);
  }
  result.code = WEXITSTATUS(::pclose(pipe));
  return result;
}

// As at a terminal: `typed` is the keyboard.
Run run_at_terminal(const std::string& url, const std::string& typed) {
  int terminal = -1;
  const pid_t child = ::forkpty(&terminal, nullptr, nullptr, nullptr);
  REQUIRE(child >= 0);
  if (child == 0) {
    ::execl(FLOTILLA_BINARY, "flotilla", "chat", url.c_str(), nullptr);
    ::_exit(127);
  }
  REQUIRE(::write(terminal, typed.data(), typed.size()) == static_cast<ssize_t>(typed.size()));
  Run result{0, {}};
  char buffer[4096];
  ssize_t n;
  while ((n = ::read(terminal, buffer, sizeof buffer)) > 0) {
    result.output.append(buffer, static_cast<size_t>(n));
  }
  ::close(terminal);
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  result.code = WEXITSTATUS(status);
  return result;
}

const std::string kChat = FLOTILLA_BINARY " chat ";

}  // namespace

TEST_CASE("ChatClient.HandsOutTextAsItComesAndTellsRankAndTokens") {
  const std::string second = delta(" wörld");
  // An event in two pieces; the second one ends in the middle of a character.
  const ScriptedServer server({delta("hello"),
                               second.substr(0, second.find("\xc3") + 1),
                               second.substr(second.find("\xc3") + 1),
                               kEnd});
  std::vector<std::string> pieces;
  const auto answer = ask({.url = server.url() + "/v1/",
                           .model = "m",
                           .api_key = "k",
                           .max_tokens = 7,
                           .temperature = 0.5,
                           .seed = 9,
                           .rank = 5},
                          &pieces);
  REQUIRE_MESSAGE(answer.ok(), answer.status().message());
  CHECK(pieces == std::vector<std::string>{"hello", " wörld"});
  CHECK(answer->text == "hello wörld");
  CHECK(answer->finish_reason == "stop");
  CHECK(answer->rank == "5");
  CHECK(answer->tokens == 3);
  CHECK(answer->first.count() > 0);
  CHECK(server.bodies.at(0) ==
        R"({"model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":7,)"
        R"("temperature":0.5,"seed":9,"stream":true,"stream_options":{"include_usage":true}})");
  CHECK(server.authorization == "Bearer k");
  CHECK(server.rank == "5");
}

TEST_CASE("ChatClient.SaysWhyThereIsNoWholeAnswer") {
  const auto reply = [](int status, const char* body) {
    return [status, body](const httplib::Request&, httplib::Response& response) {
      response.status = status;
      response.set_content(body, "application/json");
    };
  };
  CHECK(failure(ScriptedServer({delta("half")})).message().find("broke off") != std::string::npos);
  CHECK(failure(ScriptedServer({"data: {\"error\":{\"message\":\"engine failed\"}}\n\n"}))
            .message() == "the server says: engine failed");
  CHECK(failure(ScriptedServer({"data: {\n\n"})).message().find("no JSON") != std::string::npos);
  CHECK(failure(ScriptedServer(reply(429, R"({"error":{"message":"the queue is full"}})")))
            .message() == "HTTP 429: the queue is full");
  CHECK(failure(ScriptedServer(reply(502, "<html>"))).message() == "HTTP 502: <html>");
  const auto nobody = ask({.url = "http://127.0.0.1:1"});
  CHECK(nobody.status().code() == StatusCode::kUnavailable);
  CHECK(nobody.status().message().starts_with("cannot reach http://127.0.0.1:1"));
  for (const char* url : {"", "http://", "https://a", "127.0.0.1:80", "http://a/b"}) {
    CHECK(ChatClient::create({.url = url}).status().code() == StatusCode::kInvalidArgument);
  }
}

TEST_CASE("ChatClient.AnInterruptEndsAnAnswerThatIsUnderWay") {
  const ScriptedServer server([](const httplib::Request&, httplib::Response& response) {
    response.set_chunked_content_provider("text/event-stream",
                                          [sent = false](size_t, httplib::DataSink& sink) mutable {
                                            const std::string text = delta("…");
                                            if (sent && !sink.is_writable()) return false;
                                            sent = true;
                                            return sink.write(text.data(), text.size());
                                          });
  });
  auto client = ChatClient::create({.url = server.url()});
  REQUIRE(client.ok());
  const auto answer =
      client->ask({{"user", "hi"}}, [](std::string_view) { ChatClient::interrupt(); });
  CHECK(answer.status().code() == StatusCode::kCancelled);
}

TEST_CASE("ChatCommand.WritesTheAnswerToStandardOutputAndFiguresToStandardError") {
  const ScriptedServer server({delta("one "), delta("two"), kEnd});
  const Run answer = run(kChat + server.url() + " 'a question' 2>/dev/null");
  CHECK(answer.code == 0);
  CHECK(answer.output == "one two\n");
  const Run figures = run(kChat + server.url() + " 'a question' 2>&1 >/dev/null");
  CHECK(figures.output.starts_with("[rank 5, 3 tokens"));
  CHECK(run(kChat + server.url() + " q --quiet 2>&1 >/dev/null").output.empty());
  CHECK(run("printf 'from a pipe' | " + kChat + server.url() + " --system 'be nice'").code == 0);
  CHECK(server.bodies.back().find(R"([{"role":"system","content":"be nice"},)"
                                  R"({"role":"user","content":"from a pipe"}])") !=
        std::string::npos);
}

TEST_CASE("ChatCommand.KeepsTheConversationAtATerminalAndTheTerminalSafe") {
  const ScriptedServer server({delta("evil \x1b[2J\xc2\x9b text"), kEnd});
  const Run talk = run_at_terminal(server.url(), "first\nsecond\n/new\nthird\n/exit\n");
  CHECK(talk.code == 0);
  CHECK(talk.output.find("evil \uFFFD[2J\uFFFD text") != std::string::npos);
  CHECK(talk.output.find('\x1b') == std::string::npos);
  REQUIRE(server.bodies.size() == 3);
  CHECK(server.bodies[1].find("\"content\":\"first\"") != std::string::npos);
  CHECK(server.bodies[1].find("\"role\":\"assistant\"") != std::string::npos);
  CHECK(server.bodies[2].find("first") == std::string::npos);
}

TEST_CASE("ChatCommand.FailsWithCode1AndExplainsAWrongCommandLineWithCode2") {
  CHECK(run(kChat + "http://127.0.0.1:1 hi 2>&1").code == 1);
  const auto usage = [](const std::string& arguments, const char* part) {
    const Run result = run(kChat + arguments + " 2>&1");
    CAPTURE(result.output);
    CHECK(result.code == 2);
    CHECK(result.output.find(part) != std::string::npos);
  };
  usage("", "the server's URL is missing");
  usage("localhost:80 hi", "expected http://HOST:PORT");
  usage("http://a b c", "unexpected argument 'c'");
  usage("http://a b --max-tokens many", "--max-tokens: got 'many', expected a number");
  usage("http://a b --max-tokens", "--max-tokens needs a value");
  usage("http://a b --fast 1", "unknown flag '--fast'");
  usage("http://a \"$(printf '\\377')\"", "not valid UTF-8");
  CHECK(run(kChat + "--help").output.starts_with("usage: flotilla chat URL"));
}
