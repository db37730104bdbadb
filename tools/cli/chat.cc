#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <iterator>
#include <string>

#include "common/utf8.h"
#include "tools/cli/chat_client.h"
#include "tools/cli/commands.h"

namespace flotilla::cli {
namespace {

constexpr std::string_view kHelp =
    "usage: flotilla chat URL [PROMPT] [flags]\n\n"
    "Talks to a server (http://HOST:PORT). With PROMPT, or with input that is no terminal, it "
    "asks\n"
    "that one question and ends; else it reads one message per line and keeps the conversation.\n"
    "Answers go to standard output as they come; who answered and how fast to standard error.\n\n"
    "  --system TEXT      system message of the conversation\n"
    "  --max-tokens N     longest answer\n"
    "  --temperature X    0 is greedy\n"
    "  --seed N           of the sampling\n"
    "  --model NAME       'default' unless given\n"
    "  --rank N           the data-parallel rank that shall answer\n"
    "  --api-key KEY      FLOTILLA_API_KEY unless given\n"
    "  --quiet            without who answered and how fast\n\n"
    "Exit code 0; 1 if there was no whole answer; 2 for a wrong command line; 130 after Ctrl-C.\n";

constexpr int kInterrupted = 130;

struct Options {
  ChatOptions chat;
  std::string system, prompt;
  bool has_prompt = false;
  bool quiet = false;
};

int usage(const std::string& message) {
  std::fprintf(stderr, "flotilla chat: %s\n\n%s", message.c_str(), std::string(kHelp).c_str());
  return kUsage;
}

template <typename T>
bool parse_number(std::string_view text, std::optional<T>* out) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return false;
  *out = value;
  return true;
}

// Empty if the command line is right.
std::string parse(Args args, Options* options) {
  ChatOptions& chat = options->chat;
  if (const char* key = std::getenv("FLOTILLA_API_KEY")) chat.api_key = key;
  for (size_t i = 0; i < args.size(); ++i) {
    std::string_view name = args[i];
    if (!name.starts_with("--")) {
      if (chat.url.empty()) {
        chat.url = name;
      } else if (!options->has_prompt) {
        options->prompt = name;
        options->has_prompt = true;
      } else {
        return "unexpected argument '" + std::string(name) + "' (quote a prompt of several words)";
      }
      continue;
    }
    if (name == "--quiet") {
      options->quiet = true;
      continue;
    }
    std::string_view value;
    if (const size_t equals = name.find('='); equals != name.npos) {
      value = name.substr(equals + 1);
      name = name.substr(0, equals);
    } else if (i + 1 < args.size()) {
      value = args[++i];
    } else {
      return std::string(name) + " needs a value";
    }
    bool right = true;
    if (name == "--system") {
      options->system = value;
    } else if (name == "--model") {
      chat.model = value;
    } else if (name == "--api-key") {
      chat.api_key = value;
    } else if (name == "--max-tokens") {
      right = parse_number(value, &chat.max_tokens);
    } else if (name == "--temperature") {
      right = parse_number(value, &chat.temperature);
    } else if (name == "--seed") {
      right = parse_number(value, &chat.seed);
    } else if (name == "--rank") {
      right = parse_number(value, &chat.rank);
    } else {
      return "unknown flag '" + std::string(name) + "'";
    }
    if (!right) return std::string(name) + ": got '" + std::string(value) + "', expected a number";
  }
  return chat.url.empty() ? "the server's URL is missing" : "";
}

// What comes over the network must not steer the terminal: control characters other than line ends
// and tabs are not shown.
std::string harmless(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const size_t length = utf8_char_length(text);
    size_t end = 0;
    const char32_t c = length > 0 ? utf8_decode(text, &end) : 0;
    const bool control = (c < 0x20 && c != '\n' && c != '\t') || (c >= 0x7F && c < 0xA0);
    out += control ? std::string_view("\uFFFD") : text.substr(0, length);
    text.remove_prefix(std::max<size_t>(length, 1));
  }
  return out;
}

class Conversation {
 public:
  Conversation(ChatClient client, const Options& options)
      : client_(std::move(client)), options_(options) {
    restart();
  }

  void restart() {
    messages_.clear();
    if (!options_.system.empty()) messages_.push_back({"system", options_.system});
  }

  // An exit code. A question without a whole answer is forgotten.
  int ask(std::string question) {
    messages_.push_back({"user", std::move(question)});
    const bool terminal = ::isatty(STDOUT_FILENO) != 0;
    bool written = false;
    const StatusOr<ChatAnswer> answer = client_.ask(messages_, [&](std::string_view text) {
      const std::string shown = terminal ? harmless(text) : std::string(text);
      std::fwrite(shown.data(), 1, shown.size(), stdout);
      std::fflush(stdout);
      written = true;
    });
    if (answer.ok() || written) std::fputc('\n', stdout);
    std::fflush(stdout);
    if (!answer.ok()) {
      messages_.pop_back();
      std::fprintf(stderr, "flotilla chat: %s\n", harmless(answer.status().message()).c_str());
      return answer.status().code() == StatusCode::kCancelled ? kInterrupted : kFailed;
    }
    messages_.push_back({"assistant", answer->text});
    if (!options_.quiet) print_figures(*answer);
    return kOk;
  }

 private:
  static void print_figures(const ChatAnswer& answer) {
    std::string line = "[";
    if (!answer.rank.empty()) line += "rank " + harmless(answer.rank) + ", ";
    line += std::to_string(answer.tokens) + " tokens";
    char figure[64];
    if (answer.tokens_per_second() > 0) {
      std::snprintf(figure, sizeof figure, ", %.1f tokens/s", answer.tokens_per_second());
      line += figure;
    }
    std::snprintf(figure, sizeof figure, ", the first after %.2f s", answer.first.count());
    line += figure;
    if (answer.finish_reason == "length") line += ", cut at the longest length";
    std::fprintf(stderr, "%s]\n", line.c_str());
  }

  ChatClient client_;
  const Options& options_;
  std::vector<ChatMessage> messages_;
};

// Ctrl-C ends an answer, or interrupts the reading of a line.
void catch_interrupts() {
  struct sigaction action {};
  action.sa_handler = [](int) { ChatClient::interrupt(); };
  sigaction(SIGINT, &action, nullptr);  // no SA_RESTART
}

int talk(Conversation& conversation) {
  std::fputs("One message per line. /new starts over, Ctrl-C ends an answer, Ctrl-D the talk.\n",
             stderr);
  std::string line;
  while (true) {
    std::fputs("> ", stderr);
    if (!std::getline(std::cin, line)) break;
    if (line == "/new") {
      conversation.restart();
    } else if (line == "/exit" || line == "/quit") {
      return kOk;
    } else if (!is_valid_utf8(line)) {
      std::fputs("flotilla chat: that line is not valid UTF-8\n", stderr);
    } else if (!line.empty()) {
      conversation.ask(line);
    }
  }
  std::fputc('\n', stderr);
  return kOk;
}

}  // namespace

int run_chat(Args args) {
  if (std::any_of(args.begin(), args.end(), [](std::string_view arg) {
        return arg == "--help" || arg == "-h";
      })) {
    std::fwrite(kHelp.data(), 1, kHelp.size(), stdout);
    return kOk;
  }
  Options options;
  if (const std::string wrong = parse(args, &options); !wrong.empty()) return usage(wrong);
  StatusOr<ChatClient> client = ChatClient::create(options.chat);
  if (!client.ok()) return usage(client.status().message());
  catch_interrupts();
  Conversation conversation(*std::move(client), options);
  if (!options.has_prompt && ::isatty(STDIN_FILENO) != 0) return talk(conversation);
  if (!options.has_prompt) {
    options.prompt.assign(std::istreambuf_iterator<char>(std::cin), {});
  }
  if (!is_valid_utf8(options.prompt)) return usage("the prompt is not valid UTF-8");
  return conversation.ask(options.prompt);
}

}  // namespace flotilla::cli
