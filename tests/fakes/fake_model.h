// A device without arithmetic. Its cache holds the tokens themselves, and the next token is a
// function of the whole context as the cache gives it: a wrong block, a stale slot or a lost token
// changes the text.
#pragma once

#include <doctest/doctest.h>

#include <map>
#include <vector>

#include "engine/step.h"

namespace flotilla {

inline TokenId fake_next_token(const std::vector<TokenId>& context, TokenId vocab) {
  uint64_t hash = 1469598103934665603u;
  for (const TokenId t : context) hash = (hash ^ static_cast<uint64_t>(t)) * 1099511628211u;
  return static_cast<TokenId>((hash >> 20) % static_cast<uint64_t>(vocab));
}

// What a sequence alone would yield.
inline std::vector<TokenId> fake_generation(std::vector<TokenId> context, size_t n, TokenId vocab) {
  std::vector<TokenId> out;
  while (out.size() < n) {
    out.push_back(fake_next_token(context, vocab));
    context.push_back(out.back());
  }
  return out;
}

class FakeModel {
 public:
  FakeModel(int32_t num_blocks, int32_t block_size, int32_t num_slots, TokenId vocab)
      : block_size_(block_size),
        vocab_(vocab),
        cache_(static_cast<size_t>(num_blocks),
               std::vector<TokenId>(static_cast<size_t>(block_size), -1)),
        slots_(static_cast<size_t>(num_slots)) {}

  StepResult run(const StepPlan& plan) {
    StepResult result{.epoch = {}, .step = {}, .status = {}, .outputs = {}};
    for (const StepSequence& s : plan.sequences) {
      Slot& slot = slots_[static_cast<size_t>(s.slot)];
      if (s.reset) slot = {s.reset->blocks, -1};
      slot.table.insert(slot.table.end(), s.new_blocks.begin(), s.new_blocks.end());
      for (int32_t t = 0; t < s.num_tokens; ++t) {
        const TokenId token = s.tokens.empty() ? slot.last : s.tokens[static_cast<size_t>(t)];
        REQUIRE(token >= 0);
        at(slot, s.position + t) = token;
      }
      rows += s.num_tokens;
    }
    for (const StepSequence& s : plan.sequences) {
      Slot& slot = slots_[static_cast<size_t>(s.slot)];
      SequenceOutput& out = result.outputs.emplace_back();
      out.id = s.id;
      for (const TokenId target : s.prompt_targets)
        out.prompt_logprobs.push_back({.chosen = {target, -1.0f, 1}, .top = {}});
      if (!s.sample) continue;
      std::vector<TokenId> context;
      for (int32_t p = 0; p < s.position + s.num_tokens; ++p) context.push_back(at(slot, p));
      out.token = slot.last = fake_next_token(context, vocab_);
    }
    return result;
  }

  int64_t rows = 0;  // computed so far

 private:
  struct Slot {
    std::vector<BlockId> table;
    TokenId last = -1;
  };

  TokenId& at(const Slot& slot, int32_t position) {
    const auto block = static_cast<size_t>(position / block_size_);
    REQUIRE(block < slot.table.size());
    return cache_[static_cast<size_t>(slot.table[block].value)]
                 [static_cast<size_t>(position % block_size_)];
  }

  const int32_t block_size_;
  const TokenId vocab_;
  std::vector<std::vector<TokenId>> cache_;
  std::vector<Slot> slots_;
};

}  // namespace flotilla
