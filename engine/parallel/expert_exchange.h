// How tokens reach their experts, wherever these are, and how the results come back (design:
// experts over ranks). Per MoE layer: dispatch(), then next_work() until there is none, then
// combine(). All ranks of the group do this in the same order for every layer of every step; a rank
// without tokens takes part with zero rows.
#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

#include "common/ids.h"
#include "common/status.h"
#include "kernels/stream.h"
#include "kernels/tensor_view.h"

namespace flotilla {

// What a step's `go` says: equal on all members, known on the host before anything runs.
struct StepGrant {
  Epoch epoch;
  StepIndex step;
  std::vector<int32_t> tokens;  // rows per member, in members' order
};

// Rows for this rank's experts, grouped by slot: the arguments of grouped_linear. The buffers have
// bounded shapes; the counts in `offsets` may live on the device.
struct ExpertWork {
  TensorView x;           // [X, C], the activation type
  TensorView x_rows;      // [P] I32: row of x for each (token, expert) pair
  TensorView offsets;     // [slots + 1] I32: pairs of a slot
  TensorView out_rows;    // [P] I32: row of y for each pair
  TensorView y;           // [Y, C] F32: where the experts' outputs go
  int64_t max_pairs = 0;  // no more pairs than that: sizes the scratch memory
};

// Threads: the device thread, but where it says otherwise.
class ExpertExchange {
 public:
  virtual ~ExpertExchange() = default;

  // Sets the sizes of the step's exchanges. kAborted if the epoch is over.
  virtual Status begin_step(const StepGrant& grant) = 0;
  // Sends each row to the ranks that hold its experts.
  //   x [T, C]; ids [T, k] I32 ascending in a row; both stay valid until combine().
  virtual Status dispatch(int64_t layer,
                          const TensorView& x,
                          const TensorView& ids,
                          Stream& stream) = 0;
  // The next batch of rows to compute here, false if there is none left. May wait for other ranks.
  virtual StatusOr<bool> next_work(ExpertWork* work, Stream& stream) = 0;
  // y[t,:] = base[t,:] + Σ_j weights[t,j] · (row of expert ids[t,j]), added in ascending expert id
  // by the token's owner.
  //   weights [T, k] F32; base [T, C] F32, optional, may alias y; y [T, C] F32. Waits for the other
  //   ranks' rows.
  virtual Status combine(const TensorView& weights,
                         const TensorView& base,
                         const TensorView& y,
                         Stream& stream) = 0;

  // Epochs before `valid` are over: every wait of theirs ends at once with kAborted. Threads: any.
  virtual void cancel_before(Epoch valid) = 0;
  // A wait for other ranks is under way. Threads: any.
  virtual bool waiting() const = 0;
  // Time spent in such waits so far. Threads: the device thread.
  virtual std::chrono::nanoseconds waited() const = 0;
};

}  // namespace flotilla
