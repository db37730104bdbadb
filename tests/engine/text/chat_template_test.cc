#include "engine/text/chat_template.h"

#include <doctest/doctest.h>
#include <simdjson.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

using namespace flotilla;

namespace {

const std::string kData = FLOTILLA_TEST_DATA "/text";

std::string read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream out;
  out << file.rdbuf();
  return out.str();
}

TokenizerConfig model_tokens() {
  TokenizerConfig config;
  config.special_tokens = {{"bos_token", "<s>"}, {"eos_token", "</s>"}, {"pad_token", "<pad>"}};
  return config;
}

StatusOr<std::string> render(const std::string& text, const ChatRequest& request) {
  auto chat = ChatTemplate::from_text_unprobed_for_test(text, model_tokens());
  if (!chat.ok()) return chat.status();
  (*chat)->set_clock_for_test([] { return std::time_t{1767268800}; });  // 1 Jan 2026, noon UTC
  return (*chat)->render(request);
}

StatusOr<std::string> render_on(const std::string& text, std::string messages) {
  return render(text, {.messages_json = std::move(messages)});
}

std::string failure_of(std::string text) {
  auto chat = ChatTemplate::from_text(text, model_tokens());
  REQUIRE_FALSE(chat.ok());
  CHECK(chat.status().code() == StatusCode::kInvalidArgument);
  return chat.status().message();
}

}  // namespace

TEST_CASE("ChatTemplate.RendersAsJinja2SetUpByTransformers") {
  simdjson::dom::parser parser;
  std::ifstream cases(kData + "/template_cases.jsonl");
  std::string line;
  int rendered = 0, raised = 0, failed = 0;
  while (std::getline(cases, line)) {
    simdjson::dom::element c;
    REQUIRE(parser.parse(line).get(c) == simdjson::SUCCESS);
    std::string_view text;
    std::string source;
    if (c["file"].get(text) == simdjson::SUCCESS) {
      source = read(kData + "/templates/" + std::string(text));
    } else {
      REQUIRE(c["template"].get(text) == simdjson::SUCCESS);
      source = text;
    }
    const auto context = c["context"];
    ChatRequest request;
    request.messages_json = simdjson::minify(context["messages"].value());
    simdjson::dom::element value;
    if (context["tools"].get(value) == simdjson::SUCCESS)
      request.tools_json = simdjson::minify(value);
    if (context["kwargs"].get(value) == simdjson::SUCCESS)
      request.kwargs_json = simdjson::minify(value);
    bool generate;
    if (context["add_generation_prompt"].get(generate) == simdjson::SUCCESS) {
      request.add_generation_prompt = generate;
    }
    CAPTURE(source);
    CAPTURE(request.messages_json);
    const auto got = render(source, request);
    std::string_view want;
    if (c["want"].get(want) == simdjson::SUCCESS) {
      ++rendered;
      CHECK_MESSAGE(got.ok(), got.status().message());
      if (got.ok()) CHECK(*got == want);
    } else if (c["raised"].get(want) == simdjson::SUCCESS) {
      ++raised;
      REQUIRE_FALSE(got.ok());
      CHECK(got.status().code() == StatusCode::kInvalidArgument);
      CHECK(got.status().message() == want);
    } else {
      ++failed;
      REQUIRE_FALSE(got.ok());
      CHECK(got.status().code() == StatusCode::kInvalidArgument);
    }
  }
  CHECK(rendered > 80);
  CHECK(raised > 2);
  CHECK(failed > 10);
}

TEST_CASE("ChatTemplate.IsFoundInTheModelsFilesInOrder") {
  const auto dir = std::filesystem::temp_directory_path() /
                   ("flotilla_chat_template_" + std::to_string(::getpid()));
  std::filesystem::create_directories(dir);
  const auto write = [&](const char* name, const std::string& text) {
    std::ofstream(dir / name) << text;
  };
  const auto text = [&](const std::string& override_template = "") {
    auto chat = ChatTemplate::load(dir, {}, override_template);
    REQUIRE_MESSAGE(chat.ok(), chat.status().message());
    return *chat ? (*chat)->text() : std::string("none");
  };
  CHECK(text() == "none");
  write("chat_template.json", R"({"chat_template":"from json"})");
  CHECK(text() == "from json");
  write("tokenizer_config.json", R"({"chat_template":"a string"})");
  CHECK(text() == "a string");
  write(
      "tokenizer_config.json",
      R"({"chat_template":[{"name":"tool_use","template":"t"},{"name":"default","template":"d"}]})");
  CHECK(text() == "d");
  write("tokenizer_config.json",
        R"({"chat_template":[{"name":"tool_use","template":"t"},{"name":"rag","template":"r"}]})");
  auto none = ChatTemplate::load(dir, {});
  REQUIRE_FALSE(none.ok());
  CHECK(none.status().message().find("tool_use, rag") != std::string::npos);
  write("chat_template.jinja", "its own file");
  CHECK(text() == "its own file");
  write("other.jinja", "the override");
  CHECK(text((dir / "other.jinja").string()) == "the override");
  CHECK(text("{{ 1 }}") == "{{ 1 }}");
  auto missing = ChatTemplate::load(dir, {}, "nowhere.jinja");
  REQUIRE_FALSE(missing.ok());
  CHECK(missing.status().code() == StatusCode::kNotFound);
  std::filesystem::remove_all(dir);
}

TEST_CASE("ChatTemplate.StopsTheStartNamingTheConstructItCannotRun") {
  CHECK(failure_of("a\n{{ messages|frobnicate }}") ==
        "chat template, line 2: unknown filter 'frobnicate'");
  CHECK(failure_of("{{ 1 is prime }}") == "chat template, line 1: unknown test 'prime'");
  CHECK(failure_of("{% include 'x' %}") == "chat template, line 1: unknown block 'include'");
  CHECK(failure_of("{% if true %}").find("'endif'") != std::string::npos);
  CHECK(failure_of("{{ (1 }}").find("line 1") != std::string::npos);
  CHECK(failure_of("{% endfor %}").find("unexpected 'endfor'") != std::string::npos);
  CHECK(failure_of("{{ 'abc }}").find("no closing quote") != std::string::npos);
  CHECK(failure_of("{# abc").find("comment") != std::string::npos);
  CHECK(failure_of("{% raw %} abc").find("endraw") != std::string::npos);
  CHECK(failure_of("{% break %}").find("outside of a loop") != std::string::npos);
  CHECK(failure_of("\xff").find("UTF-8") != std::string::npos);
  CHECK(failure_of("{{ cycler(1) }}").find("'cycler' is undefined") != std::string::npos);
  CHECK(failure_of(std::string(2 << 20, 'x')).find("at most") != std::string::npos);
}

TEST_CASE("ChatTemplate.TakesAProbeThatEndsInRaiseExceptionAsNoFailure") {
  auto chat = ChatTemplate::from_text("{{ raise_exception('Only for robots') }}", {});
  REQUIRE(chat.ok());
  const auto got = (*chat)->render({.messages_json = "[]"});
  REQUIRE_FALSE(got.ok());
  CHECK(got.status().code() == StatusCode::kInvalidArgument);
  CHECK(got.status().message() == "Only for robots");
}

TEST_CASE("ChatTemplate.PassesOnOnlyKwargsThatTheTemplateReads") {
  const std::string text = "{{ mode }}{{ bos_token }}";
  CHECK(*render(text, {.messages_json = "[]", .kwargs_json = R"({"mode":"x","other":1})"}) ==
        "x<s>");
  for (const char* name :
       {"messages", "tools", "bos_token", "raise_exception", "add_generation_prompt"}) {
    const auto got =
        render(text, {.messages_json = "[]", .kwargs_json = "{\"" + std::string(name) + "\":1}"});
    REQUIRE_FALSE(got.ok());
    CHECK(got.status().message().find(name) != std::string::npos);
  }
  CHECK_FALSE(render(text, {.messages_json = "[]", .kwargs_json = "[1]"}).ok());
  CHECK_FALSE(render(text, {.messages_json = "[", .kwargs_json = "{}"}).ok());
}

TEST_CASE("ChatTemplate.EndsHostileTemplatesAtABound") {
  const auto bounded = [](const std::string& text) {
    CAPTURE(text.substr(0, 80));
    const std::string message = failure_of(text);
    CHECK_MESSAGE(message.find("more than") != std::string::npos, message);
  };
  bounded("{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}");
  bounded("{% for a in 'x' * 2000000 %}{% for b in 'x' * 2000000 %}{% endfor %}{% endfor %}");
  bounded("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}");
  bounded("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}");
  bounded(
      "{% set ns = namespace(s='xxxxxxxxxxxxxxxx') %}{% for i in range(60) %}{% set ns.s = ns.s ~ "
      "ns.s %}{% endfor %}");
  bounded(
      "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = ns.l + ns.l %}{% "
      "endfor %}");
  bounded(
      "{% set ns = namespace() %}{% for i in range(5000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ "
      "ns.x }}");
  bounded(
      "{% set ns = namespace() %}{% set ns.x = [ns] %}{% set ns.y = [ns.x, ns.y] %}{% for i in "
      "range(500) %}{% set ns.y = [ns.y] %}{% endfor %}{{ ns.y == ns.y }}");
  std::string doubling = "{% set x = 'xxxxxxxx' %}";
  for (int i = 0; i < 60; ++i) doubling += "{% set x = x ~ x %}";
  bounded(doubling);
  bounded("{{ 'x'|replace('', 'y' * 1000000)|replace('y', 'z' * 1000) }}");
  CHECK(failure_of("{{ 'x' * 10000000000000 }}").find("too often") != std::string::npos);
  CHECK(failure_of("{{ 'a'.ljust(10 ** 15) }}").find("pads") != std::string::npos);
  CHECK(failure_of("{{ range(10 ** 15) }}").find("Range too big") != std::string::npos);
  CHECK(failure_of("{{ 9223372036854775807 + 1 }}").find("overflow") != std::string::npos);
  CHECK(failure_of("{{ (-9223372036854775807 - 1) // -1 }}").find("overflow") != std::string::npos);
}

TEST_CASE("ChatTemplate.RefusesHostileNestingAtLoad") {
  const auto repeated = [](const std::string& s, int n) {
    std::string out;
    for (int i = 0; i < n; ++i) out += s;
    return out;
  };
  for (const std::string& text :
       {"{{ " + repeated("(", 100000) + "1" + repeated(")", 100000) + " }}",
        "{{ " + repeated("[", 100000) + " }}",
        "{{ " + repeated("not ", 100000) + "1 }}",
        "{{ " + repeated("-", 100000) + "1 }}",
        "{{ 1" + repeated(" + 1", 100000) + " }}",
        "{{ a" + repeated(".a", 100000) + " }}",
        "{{ a" + repeated("|trim", 100000) + " }}",
        "{{ 1" + repeated(" if 1 else 1", 50000) + " }}",
        repeated("{% if 1 %}", 50000),
        "{{ a" + repeated("()", 100000) + " }}",
        "{% set " + repeated("(", 100000) + " %}"}) {
    CAPTURE(text.substr(0, 20));
    CHECK_FALSE(ChatTemplate::from_text(text, {}).ok());
  }
  // Long but flat is fine.
  CHECK(ChatTemplate::from_text(repeated("{% if 1 %}a{% endif %}", 20000), {}).ok());
  CHECK(ChatTemplate::from_text("{# " + std::string(500000, 'c') + " #}" + std::string(400000, ' '),
                                {})
            .ok());
}

TEST_CASE("ChatTemplate.LeavesNoCycleBehind") {  // LeakSanitizer looks
  CHECK(render_on("{% set ns = namespace() %}{% set ns.me = [ns, {'ns': ns}] %}"
                  "{% macro f() %}{{ f is defined }}{% endmacro %}{% set ns.f = f %}{{ ns.f() }}",
                  "[]")
            .value() == "True");
}

TEST_CASE("ChatTemplate.RendersALongConversationFarBelowItsBounds") {
  std::string messages = "[";
  for (int i = 0; i < 4000; ++i) {
    messages += std::string(i > 0 ? "," : "") + R"({"role":")" +
                (i % 2 == 0 ? "user" : "assistant") + R"(","content":")" + std::string(2000, 'x') +
                "\"}";
  }
  messages += "]";
  for (const char* name :
       {"qwen3_style", "llama3_style", "mistral_style", "deepseek_style", "smollm2_style"}) {
    const auto got = render_on(read(kData + "/templates/" + name + ".jinja"), messages);
    CHECK_MESSAGE(got.ok(), got.status().message());
  }
}
