#include "api_server/routes/generate.h"

#include "common/log.h"

namespace flotilla {

openai::ApiResult<std::optional<Rank>> named_rank(const HttpRequest& http) {
  const std::string_view text = http.headers.get("X-data-parallel-rank");
  if (text.empty()) return std::optional<Rank>();
  int32_t number = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number < 0) {
    return openai::ApiError::bad_value(
        "X-data-parallel-rank", "X-data-parallel-rank: expected the number of a rank, from 0");
  }
  return std::optional<Rank>(Rank(number));
}

void refuse_generation(Serving& serving, const openai::ApiError& error, HttpExchange& exchange) {
  HttpResponse response = openai::error_answer(error);
  serving.metrics.request_refused(response.status);
  if (response.status >= 500) {
    log_warn("generation_refused", {{"reason", error.status.to_string()}});
  }
  exchange.respond(std::move(response));
}

std::optional<Admission::Permit> enter(Serving& serving, HttpExchange& exchange) {
  std::optional<Admission::Permit> permit = serving.admission.try_enter();
  if (!permit) {
    refuse_generation(
        serving,
        {resource_exhausted("too many requests: " + std::to_string(serving.admission.limit()) +
                            " are being served, the limit of --max-concurrency")},
        exchange);
  }
  return permit;
}

}  // namespace flotilla
