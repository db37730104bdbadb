#include "api_server/generation/generation.h"

#include <algorithm>
#include <utility>

#include "api_server/openai/answer.h"
#include "common/log.h"

namespace flotilla {
namespace {

using openai::ApiError;
using openai::Dialect;

bool known(SequenceTimes::Time t) { return t != SequenceTimes::Time{}; }

// A wait for a place in the engine that took too long is an overload, not a slow client.
ApiError as_client_sees(const Status& status, bool any_token) {
  if (status.code() == StatusCode::kDeadlineExceeded && !any_token) {
    return {resource_exhausted(status.message() + "; try again later")};
  }
  return {status};
}

}  // namespace

std::optional<ApiError> Generation::start(Serving& serving,
                                          GenerationPlan plan,
                                          Admission::Permit permit,
                                          const HttpRequest& http,
                                          HttpExchange& exchange) {
  std::vector<GenerationRequest> requests;
  requests.reserve(plan.sequences.size());
  std::vector<PlannedSequence> sequences = std::exchange(plan.sequences, {});
  const size_t num_prompts = plan.prompts.size();
  serving.metrics.request_accepted(static_cast<uint32_t>(sequences.size() / num_prompts),
                                   sequences.front().request.sampling.max_tokens);

  const std::shared_ptr<Generation> generation(
      new Generation(serving, std::move(plan), std::move(permit), http));
  generation->sequences_.reserve(sequences.size());
  for (PlannedSequence& planned : sequences) {
    GenerationRequest request = planned.request;
    generation->sequences_.emplace_back(*serving.tokenizer, std::move(planned));
    requests.push_back(std::move(request));
  }
  if (auto refused = generation->submit(std::move(requests), exchange.stream())) return refused;
  exchange.detach(generation);
  return std::nullopt;
}

Generation::Generation(Serving& serving,
                       GenerationPlan plan,
                       Admission::Permit permit,
                       const HttpRequest& http)
    : serving_(serving),
      plan_(std::move(plan)),
      header_id_(openai::is_valid_request_id(http.headers.get("X-Request-Id"))
                     ? std::string(http.headers.get("X-Request-Id"))
                     : plan_.request_id),
      arrival_(http.received_at),
      permit_(std::move(permit)),
      chunks_(plan_.head, plan_.include_usage) {}

Generation::~Generation() {
  if (!ended_) end("dropped");
}

std::optional<ApiError> Generation::submit(std::vector<GenerationRequest> requests,
                                           ResponseStreamHandle stream) {
  const SequenceTimes::Time now = std::chrono::steady_clock::now();
  inbox_ = std::make_shared<TokenInbox>(
      std::move(stream), static_cast<uint32_t>(sequences_.size()), plan_.watch_tokens);
  for (size_t i = 0; i < requests.size(); ++i) {
    Sequence& sequence = sequences_[i];
    GenerationRequest& request = requests[i];
    sequence.times.arrival = arrival_;
    sequence.id = serving_.hub.expect(inbox_, static_cast<uint32_t>(i));
    request.id = sequence.id;
    request.arrival = arrival_;
    if (serving_.options.max_waiting_time.count() > 0) {
      request.deadline = now + serving_.options.max_waiting_time;
    }
    const StatusOr<Placement> placed =
        serving_.dispatcher.submit(std::move(request), {.rank = plan_.rank}, &serving_.hub);
    if (!placed.ok()) {
      serving_.hub.forget(sequence.id);
      end("refused");
      return as_client_sees(placed.status(), false);
    }
    if (i == 0) rank_ = placed->decode;
    sequence.live = true;
    ++num_unfinished_;
  }
  return std::nullopt;
}

void Generation::produce(ResponseWriter& out) {
  if (ended_) return;
  std::vector<PendingTokens> news = inbox_->take();
  for (PendingTokens& pending : news) take_in(&pending);
  for (const PendingTokens& pending : news) {
    const SequenceOutput& output = sequences_[pending.sequence].output;
    if (output.finish_reason() != FinishReason::kError) continue;
    fail(as_client_sees(output.error(), output.num_tokens() > 0), out);
    return;
  }
  if (!plan_.stream) {
    if (num_unfinished_ > 0) return;
    HttpResponse response = openai::json_answer(200, whole_answer());
    for (const auto& [name, value] : headers()) response.headers.set(name, value);
    out.respond(std::move(response));
    end("finished");
    return;
  }
  if (news.empty()) return;
  if (!out.started()) out.start_events(headers());
  for (const PendingTokens& pending : news) write_chunks(pending.sequence, &out.body());
  if (num_unfinished_ > 0) return;
  if (plan_.include_usage) chunks_.append_usage(&out.body(), usage());
  openai::ChunkWriter::append_done(&out.body());
  out.finish();
  end("finished");
}

void Generation::on_client_gone() {
  if (!ended_) end("client_gone");
}

HttpHeaders Generation::headers() const {
  HttpHeaders headers{{"X-Request-Id", header_id_}};
  if (rank_) headers.set("X-Data-Parallel-Rank", std::to_string(rank_->value));
  return headers;
}

// The first error ends the whole answer: half of the choices would be of no use to a client that
// reads one error.
void Generation::fail(const ApiError& error, ResponseWriter& out) {
  log_warn("generation_failed",
           {{"request_id", plan_.request_id}, {"reason", error.status.to_string()}});
  if (out.started()) {
    openai::ChunkWriter::append_error(&out.body(), error);
    openai::ChunkWriter::append_done(&out.body());
    out.finish();
  } else {
    HttpResponse response = openai::error_answer(error);
    for (const auto& [name, value] : headers()) response.headers.set(name, value);
    serving_.metrics.request_refused(response.status);
    out.respond(std::move(response));
  }
  end("failed");
}

void Generation::take_in(PendingTokens* pending) {
  Sequence& sequence = sequences_[pending->sequence];
  if (sequence.output.finished()) return;
  TokenBatch& batch = pending->batch;
  if (batch.cached_tokens > 0) sequence.cached_tokens = batch.cached_tokens;
  if (!batch.prompt_logprobs.empty()) sequence.prompt_logprobs = std::move(batch.prompt_logprobs);
  count_tokens(*pending, &sequence);
  sequence.output.add(batch);
  if (batch.finish != FinishReason::kRunning) sequence.live = false;
  if (sequence.output.finished())
    retire(&sequence, sequence.output.finish_reason(), pending->last_at);
}

void Generation::count_tokens(const PendingTokens& pending, Sequence* sequence) {
  const TokenBatch& batch = pending.batch;
  SequenceTimes& times = sequence->times;
  if (!known(times.scheduled)) times.scheduled = batch.scheduled_at;
  size_t tokens = batch.tokens.size();
  if (tokens == 0) return;
  SequenceTimes::Time since = sequence->last_token_at;
  if (!known(since)) {
    times.first_token = pending.first_produced_at;
    serving_.metrics.first_token(pending.first_at - arrival_);
    since = pending.first_at;
    --tokens;
  }
  if (tokens > 0) {
    // Tokens that came together share the time between them evenly.
    const ServerMetrics::Seconds each =
        ServerMetrics::Seconds(pending.last_at - since) / static_cast<double>(tokens);
    for (size_t i = 0; i < tokens; ++i) serving_.metrics.next_token(each);
  }
  times.last_token = batch.produced_at;
  sequence->last_token_at = pending.last_at;
}

// A sequence is over for the client; the engine hears of it if it does not know yet.
void Generation::retire(Sequence* sequence, FinishReason reason, SequenceTimes::Time now) {
  if (sequence->live) {
    serving_.hub.forget(sequence->id);
    serving_.dispatcher.cancel(&serving_.hub, sequence->id);
    sequence->live = false;
  }
  --num_unfinished_;
  sequence->times.finished = now;
  serving_.metrics.sequence_finished(reason,
                                     plan_.prompts[sequence->prompt].ids.size(),
                                     sequence->output.num_tokens(),
                                     sequence->times);
}

void Generation::end(std::string_view outcome) {
  ended_ = true;
  const SequenceTimes::Time now = std::chrono::steady_clock::now();
  uint64_t tokens = 0;
  for (Sequence& sequence : sequences_) {
    tokens += sequence.output.num_tokens();
    if (sequence.live) retire(&sequence, FinishReason::kCancelled, now);
  }
  permit_.release();
  log_info("generation_ended",
           {{"request_id", plan_.request_id},
            {"outcome", outcome},
            {"prompt_tokens", plan_.prompts.front().ids.size()},
            {"tokens", tokens},
            {"choices", sequences_.size()},
            {"seconds", ServerMetrics::Seconds(now - arrival_).count()}});
}

}  // namespace flotilla
