// The whole API over a scripted engine and real sockets, in this process.
#pragma once

#include <doctest/doctest.h>
#include <simdjson.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "api_server/app.h"
#include "api_server/http/listen_socket.h"
#include "tests/api_server/http/http_test_client.h"
#include "tests/fakes/byte_tokenizer.h"
#include "tests/fakes/fake_dispatcher.h"

namespace flotilla {

inline constexpr std::string_view kTestTemplate =
    "{%- for m in messages -%}{{- m.role + ': ' + m.content + '\n' -}}{%- endfor -%}"
    "{%- if enable_thinking is defined and not enable_thinking -%}{{- 'quick ' -}}{%- endif -%}"
    "{%- if messages[0].content == 'raise' -%}{{- raise_exception('no such talk') -}}{%- endif -%}"
    "{%- if add_generation_prompt -%}{{- 'assistant: ' -}}{%- endif -%}";

// Answers every prompt with this text.
inline FakeDispatcher::Script says(std::string text, FinishReason finish = FinishReason::kStop) {
  return [text = std::move(text), finish](const GenerationRequest&) {
    FakeScript script;
    script.tokens = byte_ids(text);
    script.finish = finish;
    script.stop_token = finish == FinishReason::kStop ? kByteEos : -1;
    return script;
  };
}

// One parsed JSON text; keeps what its elements point into.
class JsonText {
 public:
  explicit JsonText(const std::string& text) : parser_(std::make_unique<simdjson::dom::parser>()) {
    CAPTURE(text);
    REQUIRE(parser_->parse(text).get(root_) == simdjson::SUCCESS);
  }
  // The minified value at a JSON pointer, "" if there is none.
  std::string at(std::string_view pointer) const {
    simdjson::dom::element element;
    if (root_.at_pointer(pointer).get(element) != simdjson::SUCCESS) return "";
    return simdjson::minify(element);
  }
  // The text at a JSON pointer, "" if there is none.
  std::string text(std::string_view pointer) const {
    std::string_view value;
    if (root_.at_pointer(pointer).get(value) != simdjson::SUCCESS) return "";
    return std::string(value);
  }

 private:
  std::unique_ptr<simdjson::dom::parser> parser_;
  simdjson::dom::element root_;
};

// The payloads of a body of server-sent events; checks their framing.
inline std::vector<std::string> events_of(const std::string& body) {
  std::vector<std::string> events;
  size_t at = 0;
  while (at < body.size()) {
    REQUIRE(body.compare(at, 6, "data: ") == 0);
    const size_t end = body.find("\n\n", at);
    REQUIRE(end != std::string::npos);
    events.push_back(body.substr(at + 6, end - at - 6));
    at = end + 2;
  }
  return events;
}

class ApiTestServer {
 public:
  explicit ApiTestServer(FakeDispatcher::Script script,
                         AppOptions options = {},
                         GenerationDefaults defaults = {})
      : dispatcher(std::move(script)),
        tokenizer(make_byte_tokenizer()),
        chat_template(ChatTemplate::from_text(kTestTemplate, tokenizer->config()).value()),
        app({.dispatcher = dispatcher,
             .tokenizer = tokenizer.get(),
             .chat_template = chat_template.get(),
             .defaults = defaults,
             .registry = registry},
            with_model(std::move(options))) {
    HttpServerOptions http = app_http_options(&app);
    http.name = "test";
    server = std::make_unique<HttpServer>(http);
    register_routes(*server, app);
    export_http_counters(&registry, server.get(), "api");
    auto socket = listen_on("127.0.0.1", 0);
    REQUIRE(socket.ok());
    REQUIRE(server->start(std::move(socket).value()).ok());
  }
  ~ApiTestServer() {
    dispatcher.stop_stepping();
    server->stop(std::chrono::steady_clock::now());
  }

  // The engine runs by itself from now on.
  ApiTestServer& run(std::chrono::microseconds pause = std::chrono::microseconds(0)) {
    dispatcher.start_stepping(pause);
    return *this;
  }

  RawClient client() const { return RawClient(server->port()); }
  static std::string request_text(std::string_view method,
                                  std::string_view path,
                                  std::string_view body,
                                  std::string_view headers = "") {
    return std::string(method) + " " + std::string(path) + " HTTP/1.1\r\nHost: x\r\n" +
           std::string(headers) + "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
           std::string(body);
  }
  ClientResponse ask(std::string_view method,
                     std::string_view path,
                     std::string_view body = "",
                     std::string_view headers = "") const {
    RawClient connection = client();
    REQUIRE(connection.send(request_text(method, path, body, headers)));
    std::optional<ClientResponse> response = connection.read_response();
    REQUIRE(response);
    return *response;
  }
  ClientResponse post(std::string_view path,
                      std::string_view body,
                      std::string_view headers = "") const {
    return ask("POST", path, body, headers);
  }
  ClientResponse get(std::string_view path, std::string_view headers = "") const {
    return ask("GET", path, "", headers);
  }

  MetricsRegistry registry{MetricLabels{{"model_name", "test-model"}, {"dp_rank", "0"}}};
  FakeDispatcher dispatcher;
  std::unique_ptr<Tokenizer> tokenizer;
  std::unique_ptr<ChatTemplate> chat_template;
  App app;
  std::unique_ptr<HttpServer> server;

 private:
  static AppOptions with_model(AppOptions options) {
    if (options.serving.model.empty()) options.serving.model = "/models/test-model";
    return options;
  }
};

}  // namespace flotilla
