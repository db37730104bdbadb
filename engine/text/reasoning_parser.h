// Splits what a thinking model writes into its reasoning and its answer, as text comes; how it is
// cut into chunks changes nothing. Tags, and the line breaks around them, belong to neither.
//   qwen3      <think>\n reasoning \n</think>\n\n answer; the opening tag may stand at the end of
//   the prompt instead; without
//              either, everything is the answer
//   ernie-x1   reasoning \n</think>\n\n<response>\n answer \n</response>\n, or without the response
//   tags; the prompt always ends
//              in <think>\n
// Threads: one at a time; one parser per sequence.
#pragma once

#include <string>
#include <string_view>

#include "common/status.h"

namespace flotilla {

class ReasoningParser {
 public:
  struct Delta {
    std::string reasoning;
    std::string content;
    bool operator==(const Delta&) const = default;
  };

  // Names a flag may have, for messages: "qwen3, ernie-x1".
  static constexpr std::string_view kNames = "qwen3, ernie-x1";
  static bool is_known(std::string_view name) { return name == "qwen3" || name == "ernie-x1"; }

  // `prompt`: the rendered chat template, or as much of its end as is at hand. kInvalidArgument for
  // an unknown name.
  static StatusOr<ReasoningParser> make(std::string_view name, std::string_view prompt);

  // Appends to *out what is clear by now.
  void append(std::string_view text, Delta* out);
  // The text is over: gives out what was held back.
  void finish(Delta* out);

  // False once the answer has begun.
  bool in_reasoning() const { return state_ == State::kStart || state_ == State::kReasoning; }

 private:
  enum class State {
    kStart,      // an opening tag may come
    kReasoning,  // until the closing tag
    kBetween,    // line breaks and an opening response tag may come
    kAnswer,     // plain
    kResponse,   // until the closing response tag
    kDone,       // what follows belongs to nobody
  };

  ReasoningParser(bool response_tags, State without_tag)
      : response_tags_(response_tags), without_tag_(without_tag) {}

  // Each works on held_ and returns true if the state changed, so that the rest can be looked at
  // again.
  bool step(bool final, Delta* out);
  bool start(bool final);
  bool between(bool final);
  bool until_tag(std::string_view tag, State next, bool final, std::string* out);

  bool response_tags_;
  State without_tag_;  // where a text without an opening tag goes
  State state_ = State::kStart;
  bool at_front_ = true;  // of the reasoning or the response: line breaks are dropped
  std::string held_;
};

}  // namespace flotilla
