#include "engine/model/expert_store.h"

#include <atomic>
#include <thread>

#include "common/mutex.h"

namespace flotilla {
namespace {

size_t round_up(size_t bytes) { return (bytes + 63) & ~size_t{63}; }

}  // namespace

ExpertStore::ExpertStore(const Shape& shape, Device& device, const Stream& stream, Load load)
    : shape_(shape),
      device_(device),
      gate_up_bytes_(round_up(
          packed_linear_bytes(2 * shape.intermediate, shape.hidden, shape.stored, stream))),
      down_bytes_(
          round_up(packed_linear_bytes(shape.hidden, shape.intermediate, shape.stored, stream))),
      expert_bytes_((gate_up_bytes_ + down_bytes_) * static_cast<size_t>(shape.num_layers)),
      load_(std::move(load)),
      held_(static_cast<size_t>(shape.num_experts)),
      gate_up_(static_cast<size_t>(shape.num_layers)),
      down_(static_cast<size_t>(shape.num_layers)) {}

StatusOr<ExpertStore::Held> ExpertStore::allocate() const {
  StatusOr<DeviceBuffer> memory = device_.allocate(expert_bytes_);
  if (!memory.ok()) return memory.status();
  Held held{std::move(*memory), {}};
  auto* at = static_cast<std::byte*>(held.memory.data());
  for (int64_t layer = 0; layer < shape_.num_layers; ++layer) {
    held.layers.push_back(
        {.gate_up = {at, 2 * shape_.intermediate, shape_.hidden, shape_.stored},
         .down = {at + gate_up_bytes_, shape_.hidden, shape_.intermediate, shape_.stored}});
    at += gate_up_bytes_ + down_bytes_;
  }
  return held;
}

Status ExpertStore::place(std::span<const ExpertId> experts,
                          int threads,
                          const std::function<void(double)>& progress) {
  std::vector<ExpertId> missing;
  for (const ExpertId e : experts) {
    if (held_[static_cast<size_t>(e.value)].memory.size() == 0) missing.push_back(e);
  }
  std::vector<Held> loaded(missing.size());
  for (Held& held : loaded) {
    StatusOr<Held> memory = allocate();
    if (!memory.ok()) return memory.status();
    held = std::move(*memory);
  }

  const size_t layers = static_cast<size_t>(shape_.num_layers);
  const size_t tasks = missing.size() * layers;
  std::atomic<size_t> next = 0, done = 0;
  Mutex mutex;
  Status first_error;
  const auto work = [&] {
    for (size_t task = next++; task < tasks; task = next++) {
      const size_t i = task / layers;
      const size_t layer = task % layers;
      Status status = load_(static_cast<int64_t>(layer), missing[i], loaded[i].layers[layer]);
      const size_t finished = ++done;
      MutexLock lock(mutex);
      if (!status.ok() && first_error.ok()) first_error = std::move(status);
      if (!first_error.ok()) return;
      if (progress) progress(static_cast<double>(finished) / static_cast<double>(tasks));
    }
  };
  std::vector<std::thread> helpers;
  for (int i = 1; i < threads && static_cast<size_t>(i) < tasks; ++i) helpers.emplace_back(work);
  work();
  for (std::thread& helper : helpers) helper.join();
  if (!first_error.ok()) return first_error;

  std::vector<bool> wanted(held_.size(), false);
  for (const ExpertId e : experts) wanted[static_cast<size_t>(e.value)] = true;
  for (size_t e = 0; e < held_.size(); ++e) {
    if (!wanted[e]) held_[e] = Held{};
  }
  for (size_t i = 0; i < missing.size(); ++i) {
    held_[static_cast<size_t>(missing[i].value)] = std::move(loaded[i]);
  }
  placed_.assign(experts.begin(), experts.end());
  for (size_t layer = 0; layer < layers; ++layer) {
    gate_up_[layer].clear();
    down_[layer].clear();
    for (const ExpertId e : placed_) {
      const ExpertWeights& weights = held_[static_cast<size_t>(e.value)].layers[layer];
      gate_up_[layer].push_back(weights.gate_up);
      down_[layer].push_back(weights.down);
    }
  }
  return ok_status();
}

}  // namespace flotilla
