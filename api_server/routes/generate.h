// What both generation endpoints do: admit, read, check, plan, start.
#pragma once

#include <charconv>
#include <string>

#include "api_server/generation/generation.h"
#include "api_server/generation/plan.h"
#include "api_server/routes/routes.h"

namespace flotilla {

// The rank named by X-data-parallel-rank, if any.
openai::ApiResult<std::optional<Rank>> named_rank(const HttpRequest& http);

// Answers with the error and counts it.
void refuse_generation(Serving& serving, const openai::ApiError& error, HttpExchange& exchange);

// A place for one more generation, or nullopt and 429.
std::optional<Admission::Permit> enter(Serving& serving, HttpExchange& exchange);

template <typename Request>
void generate(Serving& serving,
              const HttpRequest& http,
              HttpExchange& exchange,
              openai::ApiResult<Request> (*parse)(std::string_view, const openai::SchemaLimits&),
              openai::ApiResult<GenerationPlan> (*make_plan)(Serving&,
                                                             Request,
                                                             const std::string&)) {
  if (auto wrong_type = refuse_content_type(http)) {
    serving.metrics.request_refused(wrong_type->status);
    exchange.respond(std::move(*wrong_type));
    return;
  }
  std::optional<Admission::Permit> permit = enter(serving, exchange);
  if (!permit) return;
  openai::ApiResult<Request> request = parse(http.body, serving.schema_limits());
  if (!request.ok()) return refuse_generation(serving, request.error(), exchange);
  if (auto unknown = check_model(serving, request.value().common.model)) {
    return refuse_generation(serving, *unknown, exchange);
  }
  openai::ApiResult<std::optional<Rank>> rank = named_rank(http);
  if (!rank.ok()) return refuse_generation(serving, rank.error(), exchange);
  openai::ApiResult<GenerationPlan> plan =
      make_plan(serving, std::move(request).value(), openai::request_id_of(http));
  if (!plan.ok()) return refuse_generation(serving, plan.error(), exchange);
  plan.value().rank = rank.value();
  if (auto refused =
          Generation::start(serving, std::move(plan).value(), std::move(*permit), http, exchange)) {
    refuse_generation(serving, *refused, exchange);
  }
}

}  // namespace flotilla
