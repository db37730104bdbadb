#include "tools/cli/chat_client.h"

#include <httplib.h>
#include <simdjson.h>
#include <sys/socket.h>

#include "common/json.h"

namespace flotilla::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kConnectPatience{10};
constexpr std::chrono::hours kAnswerPatience{1};
constexpr size_t kMaxErrorBytes = 64 << 10;

// The socket of the ask() under way, for interrupt().
std::atomic<int> running_socket = -1;
std::atomic<bool> interrupted = false;

// Server-sent events as OpenAI's chat completions write them.
class AnswerReader {
 public:
  explicit AnswerReader(const std::function<void(std::string_view)>& on_text)
      : on_text_(on_text), sent_(Clock::now()) {}

  void feed(std::string_view bytes) {
    buffer_.append(bytes);
    size_t begin = 0;
    for (size_t end; (end = buffer_.find('\n', begin)) != buffer_.npos; begin = end + 1) {
      std::string_view line(buffer_.data() + begin, end - begin);
      if (line.ends_with('\r')) line.remove_suffix(1);
      if (line.starts_with("data:")) take(line.substr(5));
    }
    buffer_.erase(0, begin);
  }

  bool done() const { return done_; }
  const Status& error() const { return error_; }
  ChatAnswer take_answer() {
    if (last_ > first_) answer_.stream = last_ - first_;
    return std::move(answer_);
  }

 private:
  void take(std::string_view data) {
    if (data.starts_with(' ')) data.remove_prefix(1);
    if (data == "[DONE]") {
      done_ = true;
      return;
    }
    simdjson::dom::element event;
    if (parser_.parse(simdjson::padded_string(data)).get(event)) {
      error_ = unavailable("the server sent an event that is no JSON");
      return;
    }
    std::string_view text;
    if (!event["error"]["message"].get(text)) {
      error_ = internal_error("the server says: " + std::string(text));
      return;
    }
    int64_t tokens;
    if (!event["usage"]["completion_tokens"].get(tokens)) answer_.tokens = tokens;
    const auto choice = event["choices"].at(0);
    if (!choice["finish_reason"].get(text)) answer_.finish_reason = text;
    if (!choice["delta"]["reasoning_content"].get(text)) append(&answer_.reasoning, text);
    if (!choice["delta"]["content"].get(text)) append(&answer_.text, text);
  }

  void append(std::string* to, std::string_view text) {
    if (text.empty()) return;
    last_ = Clock::now();
    if (first_ == Clock::time_point()) {
      first_ = last_;
      answer_.first = first_ - sent_;
    }
    *to += text;
    on_text_(text);
  }

  const std::function<void(std::string_view)>& on_text_;
  simdjson::dom::parser parser_;
  std::string buffer_;
  ChatAnswer answer_;
  Clock::time_point sent_, first_, last_;
  bool done_ = false;
  Status error_;
};

// What an error's body says, or the body itself.
std::string error_message(const std::string& body) {
  simdjson::dom::parser parser;
  simdjson::dom::element root;
  std::string_view message;
  if (!parser.parse(simdjson::padded_string(body)).get(root) &&
      !root["error"]["message"].get(message)) {
    return std::string(message);
  }
  return body.substr(0, 200);
}

}  // namespace

StatusOr<ChatClient> ChatClient::create(ChatOptions options) {
  std::string& url = options.url;
  while (url.ends_with('/')) url.pop_back();
  if (url.ends_with("/v1")) url.resize(url.size() - 3);
  constexpr std::string_view kScheme = "http://";
  if (!url.starts_with(kScheme) || url.size() == kScheme.size() ||
      url.find('/', kScheme.size()) != url.npos) {
    return invalid_argument("URL: got '" + url + "', expected http://HOST:PORT");
  }
  return ChatClient(std::move(options));
}

std::string ChatClient::body(const std::vector<ChatMessage>& messages) const {
  std::string json;
  JsonWriter w(&json);
  w.begin_object();
  w.field("model", options_.model);
  w.key("messages");
  w.begin_array();
  for (const ChatMessage& message : messages) {
    w.begin_object();
    w.field("role", message.role);
    w.field("content", message.content);
    w.end_object();
  }
  w.end_array();
  if (options_.max_tokens) w.field("max_tokens", *options_.max_tokens);
  if (options_.temperature) w.field("temperature", *options_.temperature);
  if (options_.seed) w.field("seed", *options_.seed);
  w.field("stream", true);
  w.key("stream_options");
  w.raw(R"({"include_usage":true})");
  w.end_object();
  return json;
}

StatusOr<ChatAnswer> ChatClient::ask(const std::vector<ChatMessage>& messages,
                                     const std::function<void(std::string_view)>& on_text) {
  interrupted = false;
  httplib::Client client(options_.url);
  client.set_connection_timeout(kConnectPatience);
  client.set_read_timeout(kAnswerPatience);
  client.set_socket_options([](socket_t socket) { running_socket = socket; });
  httplib::Request request;
  request.method = "POST";
  request.path = "/v1/chat/completions";
  request.body = body(messages);
  request.set_header("Content-Type", "application/json");
  if (!options_.api_key.empty()) request.set_header("Authorization", "Bearer " + options_.api_key);
  if (options_.rank) request.set_header("X-Data-Parallel-Rank", std::to_string(*options_.rank));

  AnswerReader reader(on_text);
  int status = 0;
  std::string rank, error_body;
  request.response_handler = [&](const httplib::Response& response) {
    status = response.status;
    rank = response.get_header_value("X-Data-Parallel-Rank");
    return true;
  };
  request.content_receiver = [&](const char* data, size_t n, uint64_t, uint64_t) {
    if (status == 200) {
      reader.feed({data, n});
      return reader.error().ok() && !interrupted;
    }
    error_body.append(data, std::min(n, kMaxErrorBytes - error_body.size()));
    return !interrupted;
  };
  const httplib::Result result = client.send(request);
  running_socket = -1;
  if (interrupted) return cancelled("interrupted");
  if (!reader.error().ok()) return reader.error();
  if (status != 0 && status != 200) {
    return failed_precondition("HTTP " + std::to_string(status) + ": " + error_message(error_body));
  }
  if (status == 0) {
    return unavailable("cannot reach " + options_.url + ": " + httplib::to_string(result.error()));
  }
  if (!reader.done()) return unavailable("the answer broke off: its server is gone");
  ChatAnswer answer = reader.take_answer();
  answer.rank = std::move(rank);
  return answer;
}

void ChatClient::interrupt() {
  interrupted = true;
  if (const int socket = running_socket; socket >= 0) ::shutdown(socket, SHUT_RDWR);
}

}  // namespace flotilla::cli
