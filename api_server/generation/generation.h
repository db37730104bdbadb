// One running answer: submits the sequences of a plan, turns their tokens into the response, and
// ends everything when the client is gone. A handler thread starts it; from then on it lives on the
// I/O thread that owns the client's socket, which calls produce() when tokens came. The engine
// thread only fills its inbox.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <vector>

#include "api_server/generation/admission.h"
#include "api_server/generation/plan.h"
#include "api_server/generation/sequence_output.h"
#include "api_server/generation/server_metrics.h"
#include "api_server/generation/serving.h"
#include "api_server/generation/token_hub.h"
#include "api_server/http/http_server.h"
#include "api_server/http/response_stream.h"
#include "api_server/openai/format.h"

namespace flotilla {

class Generation final : public ResponseProducer {
 public:
  // Submits everything, then detaches `exchange`. If the engine refuses a sequence, none is left
  // behind, the exchange is untouched, and the error comes back.
  static std::optional<openai::ApiError> start(Serving& serving,
                                               GenerationPlan plan,
                                               Admission::Permit permit,
                                               const HttpRequest& http,
                                               HttpExchange& exchange);
  ~Generation() override;

  void produce(ResponseWriter& out) override;
  void on_client_gone() override;

 private:
  struct Sequence {
    Sequence(const Tokenizer& tokenizer, PlannedSequence&& planned)
        : prompt(planned.prompt),
          output(tokenizer, std::move(planned.output), planned.request.produced) {}

    size_t prompt;
    SequenceOutput output;
    uint64_t id = 0;
    bool live = false;            // the engine may still send tokens
    bool opened = false;          // its first chunk was written
    bool closed = false;          // its last chunk was written
    uint64_t tokens_written = 0;  // in chunks so far
    uint32_t cached_tokens = 0;
    std::vector<PositionLogprobs> prompt_logprobs;
    SequenceTimes times;
    SequenceTimes::Time last_token_at{};  // when the newest token reached the front
  };

  Generation(Serving& serving,
             GenerationPlan plan,
             Admission::Permit permit,
             const HttpRequest& http);
  std::optional<openai::ApiError> submit(std::vector<GenerationRequest> requests,
                                         ResponseStreamHandle stream);

  void take_in(PendingTokens* pending);
  void count_tokens(const PendingTokens& pending, Sequence* sequence);
  void retire(Sequence* sequence, FinishReason reason, SequenceTimes::Time now);
  void end(std::string_view outcome);

  // Writing.
  HttpHeaders headers() const;  // of every answer
  void fail(const openai::ApiError& error, ResponseWriter& out);
  void write_chunks(uint32_t index, std::string* out);
  void open(uint32_t index, std::string* out);
  std::string whole_answer();
  openai::Choice whole_choice(uint32_t index);
  std::vector<openai::LogprobEntry> echo_logprobs(const Sequence& sequence) const;
  openai::PromptLogprobs prompt_logprobs(const Sequence& sequence) const;
  openai::Usage usage() const;

  Serving& serving_;
  const GenerationPlan plan_;    // its sequences have moved on
  const std::string header_id_;  // the answer's X-Request-Id
  const SequenceTimes::Time arrival_;
  Admission::Permit permit_;
  openai::ChunkWriter chunks_;
  std::shared_ptr<TokenInbox> inbox_;
  std::vector<Sequence> sequences_;
  std::optional<Rank> rank_;  // that serves it; with several choices, the first one
  size_t num_unfinished_ = 0;
  bool ended_ = false;
};

}  // namespace flotilla
