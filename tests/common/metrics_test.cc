#include "common/metrics.h"

#include <doctest/doctest.h>

#include <thread>

namespace flotilla {
namespace {

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST_CASE("MetricsRegistry.ExportsEachKindWithHelpTypeAndCommonLabels") {
  MetricsRegistry registry({{"model_name", "m"}, {"dp_rank", "3"}});
  registry.counter({"a_total", "Things counted."}).add(2);
  registry.gauge({"b", "A level."}).set(0.5);
  const Histogram h = registry.histogram({"c_seconds", "A time."}, {0.1, 1});
  h.observe(0.05);
  h.observe(5);

  const std::string text = registry.text();
  CHECK(has(text, "# HELP a_total Things counted.\n# TYPE a_total counter\n"));
  CHECK(has(text, "a_total{dp_rank=\"3\",model_name=\"m\"} 2\n"));
  CHECK(has(text, "b{dp_rank=\"3\",model_name=\"m\"} 0.5\n"));
  CHECK(has(text, "c_seconds_count{dp_rank=\"3\",model_name=\"m\"} 2\n"));
  CHECK(has(text, "c_seconds_bucket{dp_rank=\"3\",model_name=\"m\",le=\"1\"} 1\n"));
  CHECK(has(text, "c_seconds_bucket{dp_rank=\"3\",model_name=\"m\",le=\"+Inf\"} 2\n"));
}

TEST_CASE("MetricsRegistry.ExportsAnAliasWithTheSameNumbers") {
  MetricsRegistry registry;
  const MetricSpec spec = {"fastdeploy:x_total", "Things.", {"vllm:x_total", "vllm:y_total"}};
  registry.counter(spec, {{"reason", "stop"}}).add(3);
  registry.counter(spec, {{"reason", "length"}}).add(4);

  const std::string text = registry.text();
  for (const char* name : {"fastdeploy:x_total", "vllm:x_total", "vllm:y_total"}) {
    CHECK(has(text, std::string("# TYPE ") + name + " counter\n"));
    CHECK(has(text, std::string(name) + "{reason=\"stop\"} 3\n"));
    CHECK(has(text, std::string(name) + "{reason=\"length\"} 4\n"));
  }
}

TEST_CASE("MetricsRegistry.GivesTheSameSeriesForTheSameNameAndLabels") {
  MetricsRegistry registry;
  const MetricSpec spec = {"x_total", "Things."};
  registry.counter(spec, {{"k", "v"}}).add();
  CHECK(registry.counter(spec, {{"k", "v"}}).value() == 1);
  CHECK(registry.counter(spec, {{"k", "w"}}).value() == 0);
}

TEST_CASE("MetricsRegistry.RefreshesBeforeEachExport") {
  MetricsRegistry registry;
  const Gauge gauge = registry.gauge({"level", "A level."});
  int exports = 0;
  registry.on_export([&] { gauge.set(++exports); });
  CHECK(has(registry.text(), "level 1\n"));
  CHECK(has(registry.text(), "level 2\n"));
}

TEST_CASE("MetricsRegistry.EscapesLabelValuesSoThatTheyCannotForgeLines") {
  MetricsRegistry registry(MetricLabels{{"model_name", "a\"} 1\nforged 2"}});
  registry.gauge({"level", "A level."}).set(1);
  CHECK(has(registry.text(), "level{model_name=\"a\\\"} 1\\nforged 2\"} 1\n"));
}

TEST_CASE("MetricsRegistry.CountsFromSeveralThreadsWhileExporting") {
  MetricsRegistry registry;
  const Counter counter = registry.counter({"x_total", "Things."});
  const Histogram histogram = registry.histogram({"y_seconds", "A time."}, {1});
  const auto work = [&] {
    for (int i = 0; i < 1000; ++i) {
      counter.add();
      histogram.observe(0.5);
    }
  };
  std::thread first(work), second(work);
  for (int i = 0; i < 10; ++i) (void)registry.text();
  first.join();
  second.join();
  CHECK(counter.value() == 2000);
  CHECK(has(registry.text(), "y_seconds_count 2000\n"));
}

TEST_CASE("OneTwoFiveBuckets.EndWithTheMaximum") {
  CHECK(one_two_five_buckets(20) == std::vector<double>{1, 2, 5, 10, 20});
  CHECK(one_two_five_buckets(33) == std::vector<double>{1, 2, 5, 10, 20, 33});
  CHECK(one_two_five_buckets(1) == std::vector<double>{1});
}

}  // namespace
}  // namespace flotilla
