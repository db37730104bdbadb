// One side of a conversation over HTTP: sends messages, hands out the answer as it comes.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/status.h"

namespace flotilla::cli {

struct ChatMessage {
  std::string role;
  std::string content;
};

struct ChatOptions {
  std::string url;  // "http://host:port", perhaps with "/v1" behind it
  std::string model = "default";
  std::string api_key = {};
  std::optional<int64_t> max_tokens = {};
  std::optional<double> temperature = {};
  std::optional<int64_t> seed = {};
  std::optional<int64_t> rank = {};  // that shall answer
};

struct ChatAnswer {
  std::string text;
  std::string reasoning;      // what the server split off as reasoning_content
  std::string finish_reason;  // "stop", "length"
  std::string rank;           // that answered; empty if the server does not say
  int64_t tokens = 0;
  std::chrono::duration<double> first{};   // from sending to the first text
  std::chrono::duration<double> stream{};  // from there to the last text

  // 0 if there were too few tokens to tell.
  double tokens_per_second() const {
    return tokens > 1 && stream.count() > 0 ? static_cast<double>(tokens - 1) / stream.count() : 0;
  }
};

class ChatClient {
 public:
  // kInvalidArgument for a URL that is none of this kind.
  static StatusOr<ChatClient> create(ChatOptions options);

  // kUnavailable: nobody answers there, or the answer broke off; kCancelled: interrupt(); else what
  // the server says. `on_text` gets pieces of valid UTF-8.
  StatusOr<ChatAnswer> ask(const std::vector<ChatMessage>& messages,
                           const std::function<void(std::string_view)>& on_text);

  // Ends the ask() under way, if there is one. Threads: any; also from a signal handler.
  static void interrupt();

 private:
  explicit ChatClient(ChatOptions options) : options_(std::move(options)) {}
  std::string body(const std::vector<ChatMessage>& messages) const;

  ChatOptions options_;
};

}  // namespace flotilla::cli
