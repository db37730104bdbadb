// One sequence's tokens → what its client sees: text without stop strings and half characters,
// reasoning apart, log probabilities in step with the text, counts. How the engine cuts the tokens
// into batches changes nothing of the whole.
//
//   ids → IncrementalDecoder → StopMatcher → ReasoningParser → text, reasoning
//
// A token's log probability is given out with the last byte of its text. What a stop string cuts
// off takes the log probabilities of the tokens with it that begin behind the cut; ids and counts
// keep all tokens up to the one that completed the stop string. Threads: one at a time.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "api_server/openai/format.h"
#include "common/status.h"
#include "engine/request.h"
#include "engine/text/incremental_decoder.h"
#include "engine/text/reasoning_parser.h"
#include "engine/text/stop_strings.h"
#include "engine/text/tokenizer.h"

namespace flotilla {

struct OutputOptions {
  std::vector<std::string> stop = {};
  std::vector<TokenId> stop_token_ids = {};  // the request's own: a stop by one of them is named,
                                             // one by end-of-sequence is not
  uint32_t min_tokens = 0;    // stop strings are not looked for in the text of so many tokens
  bool include_stop = false;  // what stopped it is part of the text
  bool skip_special_tokens = true;
  bool logprobs = false;
  bool tokens_as_ids = false;  // log probabilities name tokens "token_id:N"
  uint64_t text_offset = 0;    // characters of the answer before this text (an echoed prompt)
  bool discard = false;        // nothing of it is wanted (max_tokens 0): ends with the first batch
  std::optional<ReasoningParser> reasoning = {};
};

// How log probabilities show a position.
openai::LogprobEntry name_logprobs(const Tokenizer& tokenizer,
                                   const PositionLogprobs& position,
                                   bool tokens_as_ids);
// Unicode characters of a valid UTF-8 text.
uint64_t count_characters(std::string_view text);

class SequenceOutput {
 public:
  // New since the last take().
  struct Fresh {
    std::string text;
    std::string reasoning;
    std::vector<openai::LogprobEntry> logprobs;
    std::vector<TokenId> token_ids;

    bool has_output() const { return !text.empty() || !reasoning.empty() || !logprobs.empty(); }
  };

  // `resumed`: tokens that the client already has; they are read but not given out. `tokenizer`
  // outlives the output.
  SequenceOutput(const Tokenizer& tokenizer,
                 OutputOptions options,
                 std::span<const TokenId> resumed = {});

  // Not after finished().
  void add(const TokenBatch& batch);
  // True if take() would give text or log probabilities.
  bool has_output() const { return fresh_.has_output(); }
  // Everything that is settled. After finished(), the rest.
  Fresh take();

  bool finished() const { return finish_ != FinishReason::kRunning; }
  // True if it ended here before the engine knew: the engine's sequence has to be cancelled.
  bool ended_before_engine() const { return ended_before_engine_; }
  FinishReason finish_reason() const {
    return finish_;
  }  // never kCancelled: that is kError to a client who still waits
  const openai::StopReason& stop_reason() const { return stop_reason_; }
  const Status& error() const { return error_; }

  uint64_t num_tokens() const { return num_tokens_; }  // the stop token included
  uint64_t num_reasoning_tokens() const { return num_reasoning_tokens_; }
  bool has_reasoning_parser() const { return reasoning_.has_value(); }
  // False while all text so far was reasoning.
  bool answer_begun() const { return answer_begun_; }

 private:
  struct PendingLogprob {
    openai::LogprobEntry entry;
    uint64_t begin;  // bytes of decoded text before the token
    uint64_t end;    // and with it; kUnsettled while its text is not complete
  };

  bool add_token(TokenId id, const PositionLogprobs* logprobs);
  void decode(TokenId id);
  bool give_out(std::string_view decoded);
  void show(std::string_view text);
  void finish_text();
  void release_logprobs();
  uint64_t emitted_bytes() const {
    return unmatched_bytes_ + (matcher_ ? matcher_->emitted_bytes() : 0);
  }
  void end(FinishReason reason);

  const Tokenizer& tokenizer_;
  const OutputOptions options_;
  IncrementalDecoder decoder_;
  std::optional<StopMatcher> matcher_;
  std::optional<ReasoningParser> reasoning_;
  std::vector<TokenId>
      tags_;  // tokens that the reasoning parser must see although they are special

  std::string scratch_;
  std::string released_;
  uint64_t decoded_bytes_ = 0;
  uint64_t unmatched_bytes_ = 0;  // given out without being looked at for stop strings
  uint64_t text_offset_;          // characters
  std::deque<PendingLogprob> pending_logprobs_;
  Fresh fresh_;
  bool answer_begun_ = false;
  uint64_t num_tokens_ = 0;
  uint64_t num_reasoning_tokens_ = 0;
  FinishReason finish_ = FinishReason::kRunning;
  openai::StopReason stop_reason_;
  Status error_;
  bool ended_before_engine_ = false;
};

}  // namespace flotilla
