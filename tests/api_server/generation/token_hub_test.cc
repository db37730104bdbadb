#include "api_server/generation/token_hub.h"

#include <doctest/doctest.h>

#include <thread>

#include "api_server/generation/admission.h"
#include "api_server/http/io_mailbox.h"

namespace flotilla {
namespace {

struct Streams {
  std::shared_ptr<IoMailbox> mailbox = std::make_shared<IoMailbox>();
  ResponseStreamHandle make() { return std::make_shared<ResponseStream>(mailbox); }
  size_t num_woken() {
    MutexLock lock(mailbox->mutex);
    return mailbox->woken.size();
  }
};

TokenBatch batch_of(uint64_t id,
                    std::vector<TokenId> tokens,
                    FinishReason finish = FinishReason::kRunning) {
  TokenBatch batch;
  batch.id = id;
  batch.tokens = std::move(tokens);
  batch.finish = finish;
  return batch;
}

TEST_CASE("TokenHub.JoinsBatchesOfASequenceUntilSomebodyLooks") {
  Streams streams;
  TokenHub hub;
  const auto inbox = std::make_shared<TokenInbox>(streams.make(), 2, true);
  const uint64_t a = hub.expect(inbox, 0);
  const uint64_t b = hub.expect(inbox, 1);

  std::vector<TokenBatch> step = {batch_of(b, {7}), batch_of(a, {1})};
  step[0].cached_tokens = 5;
  hub.on_tokens(step);
  step = {batch_of(a, {2, 3}), batch_of(b, {8}, FinishReason::kLength)};
  hub.on_tokens(step);

  const std::vector<PendingTokens> pending = inbox->take();
  REQUIRE(pending.size() == 2);
  CHECK(pending[0].sequence == 1);
  CHECK(pending[0].batch.tokens == std::vector<TokenId>{7, 8});
  CHECK(pending[0].batch.cached_tokens == 5);
  CHECK(pending[0].batch.finish == FinishReason::kLength);
  CHECK(pending[1].batch.tokens == std::vector<TokenId>{1, 2, 3});
  CHECK(pending[1].first_at <= pending[1].last_at);
  CHECK(inbox->take().empty());
}

TEST_CASE("TokenHub.ForgetsASequenceWithItsLastBatch") {
  Streams streams;
  TokenHub hub;
  const auto inbox = std::make_shared<TokenInbox>(streams.make(), 1, true);
  const uint64_t id = hub.expect(inbox, 0);
  std::vector<TokenBatch> step = {batch_of(id, {1}, FinishReason::kStop)};
  hub.on_tokens(step);
  CHECK(hub.num_expected() == 0);
  step = {batch_of(id, {2})};
  hub.on_tokens(step);
  CHECK(inbox->take().size() == 1);
}

TEST_CASE("TokenHub.DropsTokensThatNobodyWaitsFor") {
  Streams streams;
  TokenHub hub;
  const auto inbox = std::make_shared<TokenInbox>(streams.make(), 1, true);
  const uint64_t id = hub.expect(inbox, 0);
  hub.forget(id);
  std::vector<TokenBatch> step = {batch_of(id, {1})};
  hub.on_tokens(step);
  CHECK(inbox->take().empty());
  CHECK(streams.num_woken() == 0);
}

TEST_CASE("TokenHub.WakesAStreamOncePerStepForAllItsSequences") {
  Streams streams;
  TokenHub hub;
  const auto stream = streams.make();
  const auto inbox = std::make_shared<TokenInbox>(stream, 2, true);
  const uint64_t a = hub.expect(inbox, 0);
  const uint64_t b = hub.expect(inbox, 1);
  std::vector<TokenBatch> step = {batch_of(a, {1}), batch_of(b, {2})};
  hub.on_tokens(step);
  CHECK(streams.num_woken() == 1);
}

TEST_CASE("TokenHub.LeavesAnAnswerThatIsSentWholeAsleepUntilASequenceEnds") {
  Streams streams;
  TokenHub hub;
  const auto inbox = std::make_shared<TokenInbox>(streams.make(), 1, false);
  const uint64_t id = hub.expect(inbox, 0);
  std::vector<TokenBatch> step = {batch_of(id, {1})};
  hub.on_tokens(step);
  CHECK(streams.num_woken() == 0);
  step = {batch_of(id, {2}, FinishReason::kStop)};
  hub.on_tokens(step);
  CHECK(streams.num_woken() == 1);
}

TEST_CASE("TokenHub.HandsOverWhileAnotherThreadTakes") {
  Streams streams;
  TokenHub hub;
  const auto inbox = std::make_shared<TokenInbox>(streams.make(), 1, true);
  const uint64_t id = hub.expect(inbox, 0);
  constexpr int kTokens = 2000;
  std::thread engine([&] {
    for (int i = 0; i < kTokens; ++i) {
      std::vector<TokenBatch> step = {
          batch_of(id, {i}, i + 1 == kTokens ? FinishReason::kStop : FinishReason::kRunning)};
      hub.on_tokens(step);
    }
  });
  std::vector<TokenId> all;
  for (bool done = false; !done;) {
    for (const PendingTokens& pending : inbox->take()) {
      all.insert(all.end(), pending.batch.tokens.begin(), pending.batch.tokens.end());
      done = pending.batch.finish == FinishReason::kStop;
    }
  }
  engine.join();
  REQUIRE(all.size() == kTokens);
  for (int i = 0; i < kTokens; ++i) REQUIRE(all[static_cast<size_t>(i)] == i);
}

TEST_CASE("Admission.GivesPlacesBackHoweverAPermitEnds") {
  Admission admission(2);
  std::optional<Admission::Permit> a = admission.try_enter();
  std::optional<Admission::Permit> b = admission.try_enter();
  REQUIRE(a);
  REQUIRE(b);
  CHECK_FALSE(admission.try_enter());
  CHECK(admission.held() == 2);
  {
    const Admission::Permit moved = std::move(*a);
    CHECK(admission.held() == 2);
  }
  CHECK(admission.held() == 1);
  b->release();
  b->release();
  CHECK(admission.held() == 0);
  a = admission.try_enter();
  b = admission.try_enter();
  *b = std::move(*a);
  CHECK(admission.held() == 1);
}

}  // namespace
}  // namespace flotilla
