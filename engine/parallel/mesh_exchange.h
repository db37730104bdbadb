// The expert exchange of CPU ranks, over the mesh. Each token goes once to every rank that holds
// one of its experts; rows come back one per selected expert, and the token's owner adds them in
// expert-id order: the result does not depend on who holds what.
//
// Per MoE layer every rank with tokens sends one dispatch message to every rank with experts (even
// if it is empty), and every rank that got rows sends one result message back. Both sides know from
// the step's grant who sends, so nothing else is said.
//   message: MeshHeader; dispatch: u16 pairs of each row, u16 slot of each pair, rows [rows, C] of
//   the activation type
//                        result: rows [pairs, C] F32, in the order of the dispatch
// Threads: the device thread, but for cancel_before(), waiting() and address().
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/placement.h"
#include "engine/parallel/expert_exchange.h"
#include "engine/parallel/expert_rows.h"
#include "engine/parallel/mesh_links.h"

namespace flotilla {

// Who is in an epoch, as the clock says.
struct ExchangeGroup {
  Epoch epoch;
  std::vector<MeshMember> members;  // by rank
  ExpertPlacement placement;        // index = expert id
};

class MeshExchange final : public ExpertExchange {
 public:
  struct Shape {
    int64_t hidden = 0;              // C
    DType activation = DType::kF32;  // of the rows that travel to experts
  };
  static StatusOr<std::unique_ptr<MeshExchange>> create(const MeshOptions& options,
                                                        const Shape& shape);

  const std::string& address() const { return links_->address(); }

  // Connects to the group's members. Steps of its epoch may follow; those of older ones are over.
  Status join(const ExchangeGroup& group);

  Status begin_step(const StepGrant& grant) override;
  Status dispatch(int64_t layer,
                  const TensorView& x,
                  const TensorView& ids,
                  Stream& stream) override;
  StatusOr<bool> next_work(ExpertWork* work, Stream& stream) override;
  Status combine(const TensorView& weights,
                 const TensorView& base,
                 const TensorView& y,
                 Stream& stream) override;
  void cancel_before(Epoch valid) override { links_->cancel_before(valid); }
  bool waiting() const override { return links_->waiting(); }
  std::chrono::nanoseconds waited() const override { return links_->waited(); }

 private:
  // What one member has to do with this layer.
  struct Peer {
    bool holds_experts = false;
    bool sends_rows = false;  // it has tokens in this step, and experts are here
    std::vector<int32_t>
        sent_pairs;  // own pairs (t · k + j) whose experts are there, in the order sent
    enum class Reading {
      kNothing,
      kDispatchHeader,
      kDispatchBody,
      kResultHeader,
      kResultBody
    } reading = Reading::kNothing;
    bool dispatched = false;      // its dispatch message is here
    int32_t rows = 0, pairs = 0;  // of it
    int32_t first_out_row = 0;    // where results for its pairs are put
  };
  enum class Phase {
    kStart,  // nothing handed out yet
    kOwn,    // this rank's own rows are handed out, the peers' are still on their way
    kLast,   // the last rows are handed out
    kDone,   // results are sent
  };

  MeshExchange(std::unique_ptr<MeshLinks> links, const Shape& shape)
      : links_(std::move(links)), shape_(shape) {}

  size_t row_bytes() const {
    return static_cast<size_t>(shape_.hidden) * dtype_bytes(shape_.activation);
  }
  size_t result_row_bytes() const { return static_cast<size_t>(shape_.hidden) * sizeof(float); }
  void send_dispatch(size_t member, const TensorView& x, const TensorView& ids);
  void send_results(size_t member);
  // Takes messages as they become complete. kInternal: a peer breaks the protocol.
  Status advance(size_t member);
  Status advance_all();
  Status take_header(size_t member, int kind);
  bool all_dispatched() const;
  // Receives and sends until `done`; looks only once without `wait`.
  template <typename Done>
  Status run(bool wait, Done done);
  void begin_rows();
  void add_own_rows();
  Status add_peer_rows();
  Status start_next_phase(Stream& stream);

  std::unique_ptr<MeshLinks> links_;
  const Shape shape_;
  ExchangeGroup group_;
  size_t self_ = 0;
  int32_t num_slots_ = 0;        // experts here
  std::vector<int32_t> holder_;  // expert → member index
  std::vector<int32_t> slot_;    // expert → slot there

  StepGrant grant_;
  uint16_t layer_ = 0;
  TensorView x_, ids_;
  std::vector<Peer> peers_;
  Phase phase_ = Phase::kDone;
  ExpertRows rows_;
  std::vector<char> work_x_;  // rows of this rank and of peers, one behind the other
  int32_t work_rows_ = 0;
  std::vector<float> outputs_;  // [own pairs | pairs of peers, C]
  int32_t own_pairs_ = 0;
};

}  // namespace flotilla
