// What this process counts, for Prometheus. One registry a process. Each component has a class with
// verb methods (engine/metrics.h, api_server/metrics.h) that alone knows its names; everything else
// calls verbs. Threads: counters, gauges and histograms may be used from any thread; families are
// made before threads start.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace prometheus {
class Counter;
class Gauge;
class Histogram;
}  // namespace prometheus

namespace flotilla {

using MetricLabels = std::vector<std::pair<std::string, std::string>>;

// Handles are copied freely and stay valid as long as their registry. A default-made one must not
// be used.
class Counter {
 public:
  Counter() = default;
  void add(double amount = 1.0) const;  // amount ≥ 0
  double value() const;

 private:
  friend class MetricsRegistry;
  explicit Counter(prometheus::Counter* counter) : counter_(counter) {}
  prometheus::Counter* counter_ = nullptr;
};

class Gauge {
 public:
  Gauge() = default;
  void set(double value) const;
  void add(double amount) const;
  double value() const;

 private:
  friend class MetricsRegistry;
  explicit Gauge(prometheus::Gauge* gauge) : gauge_(gauge) {}
  prometheus::Gauge* gauge_ = nullptr;
};

class Histogram {
 public:
  Histogram() = default;
  void observe(double value) const;

 private:
  friend class MetricsRegistry;
  explicit Histogram(prometheus::Histogram* histogram) : histogram_(histogram) {}
  prometheus::Histogram* histogram_ = nullptr;
};

struct MetricSpec {
  std::string name;  // a counter's ends in _total
  std::string help;  // a sentence; never empty
  std::vector<std::string> aliases =
      {};  // the same numbers once more under these names, copied when they are exported
};

class MetricsRegistry {
 public:
  // `common` labels go on every series: model_name, dp_rank.
  explicit MetricsRegistry(MetricLabels common = {});
  ~MetricsRegistry();
  MetricsRegistry(const MetricsRegistry&) = delete;
  MetricsRegistry& operator=(const MetricsRegistry&) = delete;

  // The same spec with other labels gives another series of one family; with the same labels, the
  // same series. A bad name or a name used for another type is a check failure.
  Counter counter(const MetricSpec& spec, const MetricLabels& labels = {});
  Gauge gauge(const MetricSpec& spec, const MetricLabels& labels = {});
  // `buckets`: upper bounds, rising; +Inf is added.
  Histogram histogram(const MetricSpec& spec,
                      const std::vector<double>& buckets,
                      const MetricLabels& labels = {});

  // `refresh` runs before every export, on the exporting thread: for gauges that mirror a state
  // kept elsewhere.
  void on_export(std::function<void()> refresh);

  // Everything in Prometheus' text format, version 0.0.4; families in the order of their names.
  std::string text() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// 1, 2, 5, 10, 20, 50 … up to and with `max`.
std::vector<double> one_two_five_buckets(double max);

}  // namespace flotilla
