#include "engine/text/chat_template.h"

#include <algorithm>
#include <exception>
#include <filesystem>
#include <utility>

#include "engine/text/jinja/globals.h"
#include "engine/text/jinja/parser.h"
#include "engine/text/json_fields.h"
#include "engine/text/model_file.h"
#include "engine/text/tokenizer_parts.h"

namespace flotilla {
namespace {

using text::jinja::Failure;
using text::jinja::Value;

constexpr size_t kMaxKeysOfObject = 4096;  // minja looks keys up one by one

constexpr std::string_view kReserved[] = {"messages",
                                          "tools",
                                          "documents",
                                          "add_generation_prompt",
                                          "raise_exception",
                                          "strftime_now",
                                          "namespace",
                                          "range",
                                          "dict",
                                          "joiner",
                                          "loop",
                                          "caller"};

StatusOr<Value> to_value(simdjson::dom::element element) {
  using Type = simdjson::dom::element_type;
  switch (element.type()) {
    case Type::ARRAY: {
      std::vector<Value> items;
      for (const auto item : simdjson::dom::array(element)) {
        auto value = to_value(item);
        if (!value.ok()) return value;
        items.push_back(std::move(*value));
      }
      return Value::array(items);
    }
    case Type::OBJECT: {
      const simdjson::dom::object object(element);
      if (object.size() > kMaxKeysOfObject) {
        return invalid_argument("an object of the conversation has more than " +
                                std::to_string(kMaxKeysOfObject) + " keys");
      }
      Value out = Value::object();
      for (const auto [key, item] : object) {
        auto value = to_value(item);
        if (!value.ok()) return value;
        out.set(Value(std::string(key)), *value);
      }
      return out;
    }
    case Type::STRING:
      return Value(std::string(std::string_view(element)));
    case Type::BOOL:
      return Value(bool(element));
    case Type::INT64:
      return Value(int64_t(element));
    case Type::UINT64:
      return Value(double(uint64_t(element)));
    case Type::DOUBLE:
      return Value(double(element));
    case Type::NULL_VALUE:
      return Value();
  }
  return Value();
}

StatusOr<Value> parse_value(std::string_view json, std::string_view what) {
  simdjson::dom::parser parser;
  auto document = text::parse_json(&parser, json, what);
  if (!document.ok()) return document.status();
  return to_value(*document);
}

// tokenizer_config.json's chat_template, empty if it has none.
StatusOr<std::string> template_of_config(std::string_view json, std::string_view file) {
  if (json.empty()) return std::string();
  simdjson::dom::parser parser;
  auto document = text::parse_json(&parser, json, file);
  if (!document.ok()) return document.status();
  auto fields = text::JsonFields::of(*document, std::string(file));
  if (!fields.ok()) return fields.status();
  const auto element = fields->find("chat_template");
  if (!element) return std::string();
  std::string_view text;
  if (element->get(text) == simdjson::SUCCESS) return std::string(text);
  simdjson::dom::array named;
  if (element->get(named) != simdjson::SUCCESS) {
    return fields->error("'chat_template' must be a string or a list of named templates");
  }
  std::string names, found;
  for (const auto item : named) {
    auto entry = text::JsonFields::of(item, std::string(file) + ": chat_template");
    if (!entry.ok()) return entry.status();
    auto name = entry->required_string("name"), body = entry->required_string("template");
    if (!name.ok()) return name.status();
    if (!body.ok()) return body.status();
    if (*name == "default" || named.size() == 1) found = std::move(*body);
    names += (names.empty() ? "" : ", ") + *name;
  }
  if (found.empty() && named.size() > 0) {
    return fields->error("none of the named chat templates (" + names + ") is 'default'");
  }
  return found;
}

StatusOr<std::string> template_of_override(const std::string& given) {
  std::error_code error;
  if (std::filesystem::is_regular_file(given, error)) {
    return text::read_model_file(given, text::jinja::kMaxTemplateBytes);
  }
  if (given.find('{') != std::string::npos) return given;
  return not_found("chat template '" + given + "' is neither a file nor a template");
}

}  // namespace

struct ChatTemplate::Program {
  text::jinja::ParsedTemplate parsed;
};

ChatTemplate::ChatTemplate(std::string text, const TokenizerConfig& tokenizer)
    : text_(std::move(text)),
      tokenizer_(tokenizer),
      program_(std::make_unique<Program>()),
      clock_([] { return std::time(nullptr); }) {}
ChatTemplate::~ChatTemplate() = default;

StatusOr<std::unique_ptr<ChatTemplate>> ChatTemplate::load(const std::string& model_dir,
                                                           const TokenizerConfig& tokenizer,
                                                           const std::string& override_template) {
  if (!override_template.empty()) {
    auto text = template_of_override(override_template);
    if (!text.ok()) return text.status();
    return from_text(*text, tokenizer);
  }
  auto text = text::read_optional_model_file(model_dir + "/chat_template.jinja",
                                             text::jinja::kMaxTemplateBytes);
  if (!text.ok()) return text.status();
  for (const char* file : {"tokenizer_config.json", "chat_template.json"}) {
    if (!text->empty()) break;
    auto json =
        text::read_optional_model_file(model_dir + "/" + file, text::kMaxTokenizerFileBytes);
    if (!json.ok()) return json.status();
    text = template_of_config(*json, file);
    if (!text.ok()) return text.status();
  }
  if (text->empty()) return std::unique_ptr<ChatTemplate>();
  return from_text(*text, tokenizer);
}

StatusOr<std::unique_ptr<ChatTemplate>> ChatTemplate::from_text(std::string_view text,
                                                                const TokenizerConfig& tokenizer) {
  auto chat = from_text_unprobed_for_test(text, tokenizer);
  if (chat.ok()) FLOTILLA_RETURN_IF_ERROR((*chat)->probe());
  return chat;
}

StatusOr<std::unique_ptr<ChatTemplate>> ChatTemplate::from_text_unprobed_for_test(
    std::string_view text, const TokenizerConfig& tokenizer) {
  auto parsed = text::jinja::parse_template(text);
  if (!parsed.ok()) return parsed.status();
  std::unique_ptr<ChatTemplate> out(new ChatTemplate(std::string(text), tokenizer));
  out->program_->parsed = std::move(*parsed);
  return out;
}

Status ChatTemplate::probe() const {
  constexpr std::string_view kConversations[] = {
      R"([{"role":"user","content":"Hi"}])",
      R"([{"role":"system","content":"Be brief."},{"role":"user","content":"Hi"},)"
      R"({"role":"assistant","content":"Hello"},{"role":"user","content":"Why?"}])",
      R"([{"role":"user","content":"Hi"},{"role":"assistant","content":"Hello"}])"};
  for (const std::string_view conversation : kConversations) {
    for (const bool generate : {true, false}) {
      Failure failure = Failure::kNone;
      const auto rendered =
          render({.messages_json = std::string(conversation), .add_generation_prompt = generate},
                 &failure);
      if (rendered.ok() || failure == Failure::kRaised) continue;
      return invalid_argument("chat template: a probe conversation cannot be rendered: " +
                              rendered.status().message());
    }
  }
  return ok_status();
}

StatusOr<std::string> ChatTemplate::render(const ChatRequest& request) const {
  Failure failure = Failure::kNone;
  return render(request, &failure);
}

StatusOr<std::string> ChatTemplate::render(const ChatRequest& request,
                                           text::jinja::Failure* failure) const {
  auto messages = parse_value(request.messages_json, "messages");
  if (!messages.ok()) return messages.status();
  auto tools = parse_value(request.tools_json.empty() ? "null" : request.tools_json, "tools");
  if (!tools.ok()) return tools.status();
  auto kwargs =
      parse_value(request.kwargs_json.empty() ? "{}" : request.kwargs_json, "chat_template_kwargs");
  if (!kwargs.ok()) return kwargs.status();
  if (!text::jinja::is_dict(*kwargs)) {
    return invalid_argument("chat_template_kwargs must be an object");
  }

  text::jinja::Run run({}, clock_);
  try {
    const auto globals = std::make_shared<text::jinja::Scope>(run, nullptr);
    text::jinja::add_globals(*globals);
    for (const auto& [role, token] : tokenizer_.special_tokens) globals->assign(role, Value(token));
    if (!tokenizer_.additional_special_tokens.empty()) {
      std::vector<Value> tokens;
      for (const std::string& token : tokenizer_.additional_special_tokens) {
        tokens.emplace_back(token);
      }
      globals->assign("additional_special_tokens", Value::array(tokens));
    }
    for (const Value& key : kwargs->keys()) {
      const std::string& name = *text::jinja::as_string(key);
      if (std::ranges::find(kReserved, std::string_view(name)) != std::end(kReserved) ||
          tokenizer_.special_token(name)) {
        return invalid_argument("chat_template_kwargs may not set '" + name +
                                "': it is an input of its own");
      }
      if (program_->parsed.variables.contains(name)) globals->assign(name, kwargs->at(key));
    }
    globals->assign("messages", *messages);
    globals->assign("tools", *tools);
    globals->assign("documents", Value());
    globals->assign("add_generation_prompt", Value(request.add_generation_prompt));
    std::string out = program_->parsed.root->render(globals->child());
    if (out.size() > run.limits().output_bytes) {
      *failure = Failure::kLimit;
      return invalid_argument("the chat template wrote " + std::to_string(out.size()) +
                              " bytes; at most " + std::to_string(run.limits().output_bytes) +
                              " are taken");
    }
    return out;
  } catch (const std::exception&) {
    // What was thrown says no more than run; it passed through minja, which rewrites messages.
    *failure = run.failure() == Failure::kNone ? Failure::kTemplate : run.failure();
  }
  switch (*failure) {
    case Failure::kRaised:
      return invalid_argument(run.message());
    case Failure::kLimit:
      return invalid_argument(run.message());
    default:
      return invalid_argument(
          "the chat template cannot render this conversation: " +
          (run.message().empty() ? "a value has a type it does not expect" : run.message()));
  }
}

}  // namespace flotilla
