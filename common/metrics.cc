#include "common/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <exception>
#include <map>
#include <sstream>

#include "common/check.h"
#include "common/mutex.h"

namespace flotilla {
namespace {

prometheus::Labels to_labels(const MetricLabels& labels) { return {labels.begin(), labels.end()}; }

}  // namespace

void Counter::add(double amount) const { counter_->Increment(amount); }
double Counter::value() const { return counter_->Value(); }
void Gauge::set(double value) const { gauge_->Set(value); }
void Gauge::add(double amount) const { gauge_->Increment(amount); }
double Gauge::value() const { return gauge_->Value(); }
void Histogram::observe(double value) const { histogram_->Observe(value); }

struct MetricsRegistry::Impl {
  prometheus::Registry registry;
  prometheus::Labels common;
  mutable Mutex export_mutex;  // one export at a time: refreshers need not expect another
  mutable Mutex mutex;
  std::map<std::string, std::vector<std::string>> aliases GUARDED_BY(mutex);
  std::vector<std::function<void()>> refreshers GUARDED_BY(mutex);

  // prometheus-cpp throws on a name that it does not like; here that is a slip of the programmer.
  template <typename Builder, typename... Args>
  auto* make(Builder builder, const MetricSpec& spec, const MetricLabels& labels, Args&&... args) {
    check(!spec.help.empty(), "a metric needs a help text: " + spec.name);
    {
      MutexLock lock(mutex);
      aliases[spec.name] = spec.aliases;
    }
    try {
      auto& family = builder.Name(spec.name).Help(spec.help).Labels(common).Register(registry);
      return &family.Add(to_labels(labels), std::forward<Args>(args)...);
    } catch (const std::exception& e) {
      check(false, "metric " + spec.name + ": " + e.what());
      std::terminate();
    }
  }
};

MetricsRegistry::MetricsRegistry(MetricLabels common) : impl_(std::make_unique<Impl>()) {
  impl_->common = to_labels(common);
}
MetricsRegistry::~MetricsRegistry() = default;

Counter MetricsRegistry::counter(const MetricSpec& spec, const MetricLabels& labels) {
  return Counter(impl_->make(prometheus::BuildCounter(), spec, labels));
}

Gauge MetricsRegistry::gauge(const MetricSpec& spec, const MetricLabels& labels) {
  return Gauge(impl_->make(prometheus::BuildGauge(), spec, labels));
}

Histogram MetricsRegistry::histogram(const MetricSpec& spec,
                                     const std::vector<double>& buckets,
                                     const MetricLabels& labels) {
  return Histogram(impl_->make(prometheus::BuildHistogram(), spec, labels, buckets));
}

void MetricsRegistry::on_export(std::function<void()> refresh) {
  MutexLock lock(impl_->mutex);
  impl_->refreshers.push_back(std::move(refresh));
}

std::string MetricsRegistry::text() const {
  MutexLock exporting(impl_->export_mutex);
  std::vector<std::function<void()>> refreshers;
  std::map<std::string, std::vector<std::string>> aliases;
  {
    MutexLock lock(impl_->mutex);
    refreshers = impl_->refreshers;
    aliases = impl_->aliases;
  }
  for (const auto& refresh : refreshers) refresh();

  std::vector<prometheus::MetricFamily> families = impl_->registry.Collect();
  const size_t own = families.size();
  for (size_t i = 0; i < own; ++i) {
    for (const std::string& alias : aliases[families[i].name]) {
      prometheus::MetricFamily copy = families[i];
      copy.name = alias;
      families.push_back(std::move(copy));
    }
  }
  std::sort(families.begin(), families.end(), [](const auto& a, const auto& b) {
    return a.name < b.name;
  });
  std::ostringstream out;
  prometheus::TextSerializer().Serialize(out, families);
  return std::move(out).str();
}

std::vector<double> one_two_five_buckets(double max) {
  std::vector<double> buckets;
  for (double decade = 1;; decade *= 10) {
    for (const double digit : {1.0, 2.0, 5.0}) {
      if (decade * digit >= max) {
        buckets.push_back(max);
        return buckets;
      }
      buckets.push_back(decade * digit);
    }
  }
}

}  // namespace flotilla
