// The exchange of a rank that holds every expert itself: nothing travels.
#pragma once

#include <vector>

#include "engine/parallel/expert_exchange.h"
#include "engine/parallel/expert_rows.h"

namespace flotilla {

class LocalExchange final : public ExpertExchange {
 public:
  // Expert e is in slot e. hidden: C.
  LocalExchange(int32_t num_experts, int64_t hidden) : num_experts_(num_experts), hidden_(hidden) {}

  Status begin_step(const StepGrant&) override { return ok_status(); }
  Status dispatch(int64_t layer,
                  const TensorView& x,
                  const TensorView& ids,
                  Stream& stream) override;
  StatusOr<bool> next_work(ExpertWork* work, Stream& stream) override;
  Status combine(const TensorView& weights,
                 const TensorView& base,
                 const TensorView& y,
                 Stream& stream) override;
  void cancel_before(Epoch) override {}
  bool waiting() const override { return false; }
  std::chrono::nanoseconds waited() const override { return {}; }

 private:
  const int32_t num_experts_;
  const int64_t hidden_;
  TensorView x_;
  ExpertRows rows_;
  std::vector<float> outputs_;  // [T · k, C]
};

}  // namespace flotilla
