// A model's chat template: a conversation → the prompt's text. The template is Jinja, rendered as
// Hugging Face transformers sets it up (trim_blocks, lstrip_blocks, no trailing newline). Values,
// scopes and calls are minja's; the parser and the nodes are ours (engine/text/jinja), since a
// model's files are not trusted: minja's own neither bound work, memory and depth nor keep to Jinja
// in several places (jinja/README.md).
#pragma once

#include <ctime>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "common/status.h"
#include "engine/text/tokenizer.h"

namespace flotilla {

namespace text::jinja {
enum class Failure;
}

struct ChatRequest {
  std::string messages_json;  // an array of messages, as a client sent and the server checked them
  std::string tools_json = {};  // an array, or empty: none
  bool add_generation_prompt = true;
  // chat_template_kwargs: a JSON object or empty. Only names that the template reads are passed on;
  // the names of its other inputs (messages, tools, bos_token, …) are refused.
  std::string kwargs_json = {};
};

// Threads: immutable; render() may be called from any thread.
class ChatTemplate {
 public:
  // Finds, in this order: the override (--chat-template: a file's path or the template itself),
  // chat_template.jinja, tokenizer_config.json's chat_template (a string, or a list of named ones
  // of which "default" is taken), chat_template.json. nullptr if the model has none: such a model
  // serves no chats. Tries it on probe conversations: kInvalidArgument, naming the construct, if it
  // cannot be run.
  static StatusOr<std::unique_ptr<ChatTemplate>> load(const std::string& model_dir,
                                                      const TokenizerConfig& tokenizer,
                                                      const std::string& override_template = {});
  // The same from a template's text.
  static StatusOr<std::unique_ptr<ChatTemplate>> from_text(std::string_view text,
                                                           const TokenizerConfig& tokenizer);
  // Without the probes, for templates that need a certain conversation.
  static StatusOr<std::unique_ptr<ChatTemplate>> from_text_unprobed_for_test(
      std::string_view text, const TokenizerConfig& tokenizer);
  ~ChatTemplate();

  // kInvalidArgument: the template called raise_exception (its message alone), or a value of the
  // request does not fit it, or rendering went over a bound. Encode the result with
  // add_special_tokens off: the template writes BOS itself.
  StatusOr<std::string> render(const ChatRequest& request) const;

  const std::string& text() const { return text_; }

  // What strftime_now tells the time by.
  void set_clock_for_test(std::function<std::time_t()> clock) { clock_ = std::move(clock); }

 private:
  struct Program;
  ChatTemplate(std::string text, const TokenizerConfig& tokenizer);
  Status probe() const;
  StatusOr<std::string> render(const ChatRequest& request, text::jinja::Failure* failure) const;

  std::string text_;
  TokenizerConfig tokenizer_;
  std::unique_ptr<Program> program_;
  std::function<std::time_t()> clock_;
};

}  // namespace flotilla
