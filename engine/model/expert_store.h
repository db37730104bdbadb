// The routed experts that this rank holds, loaded and dropped one by one while the model lives (a
// lost rank's experts move). Threads: place() is called while no step runs; the rest by the device
// thread.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "common/ids.h"
#include "common/status.h"
#include "kernels/device.h"
#include "kernels/linear.h"

namespace flotilla {

// One expert in one MoE layer.
struct ExpertWeights {
  PackedWeight gate_up;  // [2M, C]: gate rows, then up rows
  PackedWeight down;     // [C, M]
};

class ExpertStore {
 public:
  // Fills the weights of one expert in MoE layer `layer` (counted among MoE layers), or only checks
  // that they exist.
  using Load = std::function<Status(int64_t layer, ExpertId expert, const ExpertWeights& into)>;

  struct Shape {
    int64_t num_experts = 0;
    int64_t num_layers = 0;    // MoE layers
    int64_t hidden = 0;        // C
    int64_t intermediate = 0;  // M
    DType stored = DType::kBf16;
  };
  ExpertStore(const Shape& shape, Device& device, const Stream& stream, Load load);

  const Shape& shape() const { return shape_; }
  // Memory of one expert over all layers.
  size_t expert_bytes() const { return expert_bytes_; }

  // Makes slot s hold experts[s]: loads what is new with `threads` threads, drops what is not
  // named. `progress` is called with the fraction of the new bytes loaded. On an error the store
  // holds what it held before.
  Status place(std::span<const ExpertId> experts,
               int threads,
               const std::function<void(double)>& progress = {});
  std::span<const ExpertId> placed() const { return placed_; }

  // By slot.
  std::span<const PackedWeight> gate_up(int64_t layer) const {
    return gate_up_[static_cast<size_t>(layer)];
  }
  std::span<const PackedWeight> down(int64_t layer) const {
    return down_[static_cast<size_t>(layer)];
  }

 private:
  struct Held {
    DeviceBuffer memory;  // all layers of one expert
    std::vector<ExpertWeights> layers;
  };

  StatusOr<Held> allocate() const;

  const Shape shape_;
  Device& device_;
  size_t gate_up_bytes_;
  size_t down_bytes_;
  size_t expert_bytes_;
  Load load_;
  std::vector<Held> held_;  // by expert id; empty memory: not here
  std::vector<ExpertId> placed_;
  std::vector<std::vector<PackedWeight>> gate_up_, down_;  // [layer][slot]
};

}  // namespace flotilla
