#include "engine/text/reasoning_parser.h"

#include <algorithm>

namespace flotilla {
namespace {

constexpr std::string_view kOpen = "<think>", kClose = "</think>";
constexpr std::string_view kOpenResponse = "<response>", kCloseResponse = "</response>";

// Bytes at the end of `text` with which `tag` could begin.
size_t beginning_of(std::string_view tag, std::string_view text) {
  for (size_t n = std::min(tag.size() - 1, text.size()); n > 0; --n) {
    if (text.ends_with(tag.substr(0, n))) return n;
  }
  return 0;
}

size_t line_breaks_at_end(std::string_view text) {
  const size_t last = text.find_last_not_of('\n');
  return last == std::string_view::npos ? text.size() : text.size() - last - 1;
}

}  // namespace

StatusOr<ReasoningParser> ReasoningParser::make(std::string_view name, std::string_view prompt) {
  if (name == "ernie-x1") return ReasoningParser(true, State::kReasoning);
  if (name != "qwen3") {
    return invalid_argument("reasoning parser '" + std::string(name) +
                            "' is unknown; known: " + std::string(kNames));
  }
  const size_t open = prompt.rfind(kOpen), close = prompt.rfind(kClose);
  const bool is_open =
      open != std::string_view::npos && (close == std::string_view::npos || close < open);
  return ReasoningParser(false, is_open ? State::kReasoning : State::kAnswer);
}

void ReasoningParser::append(std::string_view text, Delta* out) {
  held_ += text;
  while (step(false, out)) {
  }
}

void ReasoningParser::finish(Delta* out) {
  while (step(true, out)) {
  }
}

bool ReasoningParser::step(bool final, Delta* out) {
  switch (state_) {
    case State::kStart:
      return start(final);
    case State::kReasoning:
      return until_tag(kClose, State::kBetween, final, &out->reasoning);
    case State::kBetween:
      return between(final);
    case State::kResponse:
      return until_tag(kCloseResponse, State::kDone, final, &out->content);
    case State::kAnswer:
      out->content += held_;
      held_.clear();
      return false;
    case State::kDone:
      held_.clear();
      return false;
  }
  return false;
}

bool ReasoningParser::start(bool final) {
  const size_t at = std::min(held_.find_first_not_of(" \t\r\n"), held_.size());
  const std::string_view rest = std::string_view(held_).substr(at);
  if (rest.starts_with(kOpen)) {
    held_.erase(0, at + kOpen.size());
    state_ = State::kReasoning;
    return true;
  }
  if (!final && rest.size() < kOpen.size() && kOpen.starts_with(rest)) return false;
  state_ = without_tag_;
  return true;
}

bool ReasoningParser::between(bool final) {
  held_.erase(0, std::min(held_.find_first_not_of('\n'), held_.size()));
  if (response_tags_ && held_.starts_with(kOpenResponse)) {
    held_.erase(0, kOpenResponse.size());
    state_ = State::kResponse;
    at_front_ = true;
    return true;
  }
  if (held_.empty() && !final) return false;
  if (response_tags_ && !final && held_.size() < kOpenResponse.size() &&
      kOpenResponse.starts_with(held_)) {
    return false;
  }
  state_ = State::kAnswer;
  return true;
}

bool ReasoningParser::until_tag(std::string_view tag, State next, bool final, std::string* out) {
  if (at_front_) held_.erase(0, std::min(held_.find_first_not_of('\n'), held_.size()));
  if (held_.empty()) return false;
  at_front_ = false;
  const size_t at = held_.find(tag);
  std::string_view ready = std::string_view(held_).substr(0, at);
  if (at == std::string::npos) {
    if (!final) ready.remove_suffix(beginning_of(tag, ready));
  }
  // Line breaks in front of the tag are not given out, so those at the end wait for what follows
  // them.
  if (at != std::string::npos || !final) ready.remove_suffix(line_breaks_at_end(ready));
  *out += ready;
  if (at == std::string::npos) {
    held_.erase(0, ready.size());
    return false;
  }
  held_.erase(0, at + tag.size());
  state_ = next;
  return true;
}

}  // namespace flotilla
