#include "api_server/generation/plan.h"
#include "api_server/routes/routes.h"
#include "common/json.h"

namespace flotilla {
namespace {

openai::ApiResult<std::vector<TokenId>> tokens_of(const Serving& serving,
                                                  openai::TokenizeRequest request) {
  const bool is_chat = !request.prompt;
  std::string text;
  if (is_chat) {
    auto rendered = render_chat(
        serving, request.messages, request.template_kwargs, request.add_generation_prompt);
    if (!rendered.ok()) return rendered.error();
    text = std::move(rendered).value();
  } else {
    text = std::move(*request.prompt);
  }
  // A chat template writes its own special tokens.
  const bool add_special_tokens = request.add_special_tokens.value_or(!is_chat);
  auto ids = serving.tokenizer->encode(text, {.add_special_tokens = add_special_tokens});
  if (!ids.ok()) return openai::ApiError{ids.status(), is_chat ? "messages" : "prompt"};
  return std::move(*ids);
}

void tokenize(const Serving& serving, const HttpRequest& http, HttpExchange& exchange) {
  if (auto wrong_type = refuse_content_type(http)) return exchange.respond(std::move(*wrong_type));
  auto request = openai::parse_tokenize_request(http.body, serving.schema_limits());
  if (!request.ok()) return exchange.respond(openai::error_answer(request.error()));
  if (auto unknown = check_model(serving, request.value().model)) {
    return exchange.respond(openai::error_answer(*unknown));
  }
  const bool with_texts = request.value().return_token_strs;
  auto tokens = tokens_of(serving, std::move(request).value());
  if (!tokens.ok()) return exchange.respond(openai::error_answer(tokens.error()));

  std::string body;
  JsonWriter json(&body);
  json.begin_object();
  json.field("count", tokens.value().size());
  json.field("max_model_len", serving.dispatcher.limits().max_model_len);
  json.key("tokens");
  json.begin_array();
  for (const TokenId id : tokens.value()) json.value(id);
  json.end_array();
  json.key("token_strs");
  if (with_texts) {
    json.begin_array();
    for (const TokenId id : tokens.value()) json.value(serving.tokenizer->token_text(id));
    json.end_array();
  } else {
    json.null();
  }
  json.end_object();
  exchange.respond(openai::json_answer(200, std::move(body)));
}

}  // namespace

void register_tokenize(HttpServer& server, Serving& serving) {
  server.route("POST", "/tokenize", [&serving](const HttpRequest& http, HttpExchange& exchange) {
    tokenize(serving, http, exchange);
  });
}

}  // namespace flotilla
