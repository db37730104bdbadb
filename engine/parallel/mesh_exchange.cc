#include "engine/parallel/mesh_exchange.h"

#include <algorithm>
#include <cstring>

#include "kernels/moe.h"

namespace flotilla {
namespace {

enum Kind { kDispatch = 1, kResult = 2 };

struct MeshHeader {
  static constexpr uint32_t kMagic = 0x53574F52;  // "ROWS"
  uint32_t magic = kMagic;
  uint16_t kind = 0;
  uint16_t layer = 0;
  uint64_t step = 0;
  uint32_t rows = 0;
  uint32_t pairs = 0;
};
static_assert(sizeof(MeshHeader) == 24);

std::string_view bytes_of(const MeshHeader& header) {
  return {reinterpret_cast<const char*>(&header), sizeof header};
}

}  // namespace

StatusOr<std::unique_ptr<MeshExchange>> MeshExchange::create(const MeshOptions& options,
                                                             const Shape& shape) {
  StatusOr<std::unique_ptr<MeshLinks>> links = MeshLinks::listen(options);
  if (!links.ok()) return links.status();
  return std::unique_ptr<MeshExchange>(new MeshExchange(std::move(*links), shape));
}

Status MeshExchange::join(const ExchangeGroup& group) {
  group_ = group;
  const size_t members = group.members.size();
  peers_.assign(members, Peer{});
  holder_.assign(group.placement.size(), -1);
  slot_.assign(group.placement.size(), 0);
  num_slots_ = 0;
  for (size_t e = 0; e < group.placement.size(); ++e) {
    const ExpertReplica& replica = group.placement[e].front();
    for (size_t m = 0; m < members; ++m) {
      if (group.members[m].rank == replica.rank) holder_[e] = static_cast<int32_t>(m);
    }
    if (holder_[e] < 0) {
      return internal_error("expert " + std::to_string(e) + " is placed on rank " +
                            std::to_string(replica.rank.value) + ", which is not in the group");
    }
    slot_[e] = replica.slot;
    peers_[static_cast<size_t>(holder_[e])].holds_experts = true;
  }
  FLOTILLA_RETURN_IF_ERROR(links_->connect(group.epoch, group.members));
  for (size_t m = 0; m < members; ++m) {
    if (links_->links()[m].fd() < 0) self_ = m;
  }
  for (size_t e = 0; e < holder_.size(); ++e) {
    if (holder_[e] == static_cast<int32_t>(self_)) num_slots_ = std::max(num_slots_, slot_[e] + 1);
  }
  return ok_status();
}

Status MeshExchange::begin_step(const StepGrant& grant) {
  if (grant.epoch != group_.epoch)
    return aborted("epoch " + std::to_string(grant.epoch.value) + " is over");
  check(grant.tokens.size() == peers_.size(), "a grant has the tokens of every member");
  grant_ = grant;
  for (size_t m = 0; m < peers_.size(); ++m) {
    peers_[m].sends_rows = m != self_ && grant.tokens[m] > 0 && num_slots_ > 0;
  }
  return ok_status();
}

void MeshExchange::send_dispatch(size_t member, const TensorView& x, const TensorView& ids) {
  Peer& peer = peers_[member];
  peer.sent_pairs.clear();
  std::vector<uint16_t> pairs_of_row, slots;
  std::vector<int64_t> rows;
  const int64_t k = ids.cols();
  for (int64_t t = 0; t < ids.rows(); ++t) {
    uint16_t here = 0;
    for (int64_t j = 0; j < k; ++j) {
      const auto e = static_cast<size_t>(ids.row<int32_t>(t)[j]);
      if (holder_[e] != static_cast<int32_t>(member)) continue;
      ++here;
      slots.push_back(static_cast<uint16_t>(slot_[e]));
      peer.sent_pairs.push_back(static_cast<int32_t>(t * k + j));
    }
    if (here == 0) continue;
    pairs_of_row.push_back(here);
    rows.push_back(t);
  }
  const MeshHeader header{.kind = kDispatch,
                          .layer = layer_,
                          .step = grant_.step.value,
                          .rows = static_cast<uint32_t>(rows.size()),
                          .pairs = static_cast<uint32_t>(slots.size())};
  std::string message(bytes_of(header));
  message.append(reinterpret_cast<const char*>(pairs_of_row.data()), pairs_of_row.size() * 2);
  message.append(reinterpret_cast<const char*>(slots.data()), slots.size() * 2);
  for (const int64_t t : rows) {
    message.append(static_cast<const char*>(x.data) + static_cast<size_t>(t) * row_bytes(),
                   row_bytes());
  }
  links_->links()[member].send(message);
}

Status MeshExchange::dispatch(int64_t layer,
                              const TensorView& x,
                              const TensorView& ids,
                              Stream& stream) {
  stream.synchronize();
  layer_ = static_cast<uint16_t>(layer);
  x_ = x;
  ids_ = ids;
  own_pairs_ = static_cast<int32_t>(ids.elements());
  for (size_t m = 0; m < peers_.size(); ++m) {
    Peer& peer = peers_[m];
    peer.dispatched = false;
    peer.rows = peer.pairs = 0;
    peer.reading = Peer::Reading::kNothing;
    peer.sent_pairs.clear();
    if (m == self_) continue;
    if (peer.holds_experts && ids.rows() > 0) send_dispatch(m, x, ids);
    if (peer.sends_rows) {
      peer.reading = Peer::Reading::kDispatchHeader;
      links_->links()[m].expect(sizeof(MeshHeader));
    }
  }
  phase_ = Phase::kStart;
  begin_rows();
  return ok_status();
}

Status MeshExchange::take_header(size_t member, int kind) {
  MeshLink& link = links_->links()[member];
  Peer& peer = peers_[member];
  MeshHeader header;
  std::memcpy(&header, link.received().data(), sizeof header);
  const bool sound = header.magic == MeshHeader::kMagic && header.kind == kind &&
                     header.layer == layer_ && header.step == grant_.step.value;
  const uint64_t max_rows =
      kind == kDispatch ? static_cast<uint64_t>(grant_.tokens[member]) : peer.sent_pairs.size();
  if (!sound || header.rows > max_rows || header.pairs > uint64_t{header.rows} * holder_.size()) {
    return internal_error("rank " + std::to_string(link.rank().value) +
                          " sent rows that do not belong to step " +
                          std::to_string(grant_.step.value) + ", layer " + std::to_string(layer_));
  }
  if (kind == kDispatch) {
    peer.rows = static_cast<int32_t>(header.rows);
    peer.pairs = static_cast<int32_t>(header.pairs);
    link.expect(size_t{header.rows} * 2 + size_t{header.pairs} * 2 +
                size_t{header.rows} * row_bytes());
    peer.reading = Peer::Reading::kDispatchBody;
  } else {
    if (header.rows != peer.sent_pairs.size())
      return internal_error("a rank sent back fewer rows than it got");
    link.expect(size_t{header.rows} * result_row_bytes());
    peer.reading = Peer::Reading::kResultBody;
  }
  return ok_status();
}

Status MeshExchange::advance(size_t member) {
  Peer& peer = peers_[member];
  MeshLink& link = links_->links()[member];
  using Reading = Peer::Reading;
  while (peer.reading != Reading::kNothing) {
    if (!link.have()) link.receive();
    if (!link.have()) return ok_status();
    switch (peer.reading) {
      case Reading::kDispatchHeader:
        FLOTILLA_RETURN_IF_ERROR(take_header(member, kDispatch));
        break;
      case Reading::kDispatchBody:
        peer.dispatched = true;
        peer.reading = Reading::kNothing;  // the body stays in the link until its rows are added
        break;
      case Reading::kResultHeader:
        FLOTILLA_RETURN_IF_ERROR(take_header(member, kResult));
        break;
      case Reading::kResultBody: {
        const char* row = link.received().data();
        for (const int32_t pair : peer.sent_pairs) {
          std::memcpy(
              outputs_.data() + static_cast<size_t>(pair) * static_cast<size_t>(shape_.hidden),
              row,
              result_row_bytes());
          row += result_row_bytes();
        }
        peer.reading = Reading::kNothing;
        break;
      }
      case Reading::kNothing:
        break;
    }
  }
  return ok_status();
}

Status MeshExchange::advance_all() {
  for (size_t m = 0; m < peers_.size(); ++m) FLOTILLA_RETURN_IF_ERROR(advance(m));
  return ok_status();
}

template <typename Done>
Status MeshExchange::run(bool wait, Done done) {
  Status protocol;
  const Status status = links_->run(wait, [&] {
    protocol = advance_all();
    return !protocol.ok() || done();
  });
  return protocol.ok() ? status : protocol;
}

bool MeshExchange::all_dispatched() const {
  return std::all_of(
      peers_.begin(), peers_.end(), [](const Peer& p) { return !p.sends_rows || p.dispatched; });
}

void MeshExchange::begin_rows() {
  rows_.reset(num_slots_);
  work_rows_ = 0;
}

void MeshExchange::add_own_rows() {
  const int64_t k = ids_.cols();
  bool any = false;
  for (int64_t t = 0; t < ids_.rows(); ++t) {
    for (int64_t j = 0; j < k; ++j) {
      const auto e = static_cast<size_t>(ids_.row<int32_t>(t)[j]);
      if (holder_[e] != static_cast<int32_t>(self_)) continue;
      rows_.add(slot_[e], static_cast<int32_t>(t), static_cast<int32_t>(t * k + j));
      any = true;
    }
  }
  if (!any) return;
  const size_t bytes = static_cast<size_t>(ids_.rows()) * row_bytes();
  work_x_.resize(std::max(work_x_.size(), bytes));
  std::memcpy(work_x_.data(), x_.data, bytes);
  work_rows_ = static_cast<int32_t>(ids_.rows());
}

Status MeshExchange::add_peer_rows() {
  int32_t out_row = own_pairs_;
  for (size_t m = 0; m < peers_.size(); ++m) {
    Peer& peer = peers_[m];
    if (!peer.dispatched) continue;
    const MeshLink& link = links_->links()[m];
    const char* body = link.received().data();
    const auto rows = static_cast<size_t>(peer.rows);
    const auto pairs = static_cast<size_t>(peer.pairs);
    std::vector<uint16_t> pairs_of_row(rows), slots(pairs);
    std::memcpy(pairs_of_row.data(), body, rows * 2);
    std::memcpy(slots.data(), body + rows * 2, pairs * 2);
    peer.first_out_row = out_row;
    size_t p = 0;
    for (size_t r = 0; r < rows; ++r) {
      for (uint16_t i = 0; i < pairs_of_row[r]; ++i, ++p) {
        if (p >= pairs || slots[p] >= num_slots_) {
          return internal_error("rank " + std::to_string(link.rank().value) +
                                " sent rows for experts that are not here");
        }
        rows_.add(slots[p], work_rows_ + static_cast<int32_t>(r), out_row++);
      }
    }
    const size_t at = static_cast<size_t>(work_rows_) * row_bytes();
    work_x_.resize(std::max(work_x_.size(), at + rows * row_bytes()));
    std::memcpy(work_x_.data() + at, body + rows * 2 + pairs * 2, rows * row_bytes());
    work_rows_ += peer.rows;
  }
  return ok_status();
}

void MeshExchange::send_results(size_t member) {
  const Peer& peer = peers_[member];
  const MeshHeader header{.kind = kResult,
                          .layer = layer_,
                          .step = grant_.step.value,
                          .rows = static_cast<uint32_t>(peer.pairs),
                          .pairs = 0};
  MeshLink& link = links_->links()[member];
  const size_t first = static_cast<size_t>(peer.first_out_row) * static_cast<size_t>(shape_.hidden);
  std::string message(bytes_of(header));
  message.append(reinterpret_cast<const char*>(outputs_.data() + first),
                 static_cast<size_t>(peer.pairs) * result_row_bytes());
  link.send(message);
}

Status MeshExchange::start_next_phase(Stream& stream) {
  begin_rows();
  switch (phase_) {
    case Phase::kStart:
      // One pass over everything reads each expert's weights once: taken if all rows are here
      // already.
      FLOTILLA_RETURN_IF_ERROR(run(false, [&] { return all_dispatched(); }));
      add_own_rows();
      phase_ = Phase::kOwn;
      if (!all_dispatched()) break;
      phase_ = Phase::kLast;
      FLOTILLA_RETURN_IF_ERROR(add_peer_rows());
      break;
    case Phase::kOwn:
      FLOTILLA_RETURN_IF_ERROR(run(true, [&] { return all_dispatched(); }));
      phase_ = Phase::kLast;
      FLOTILLA_RETURN_IF_ERROR(add_peer_rows());
      break;
    case Phase::kLast:
      stream.synchronize();
      for (size_t m = 0; m < peers_.size(); ++m) {
        if (peers_[m].pairs > 0) send_results(m);
        if (peers_[m].sent_pairs.empty()) continue;
        peers_[m].reading = Peer::Reading::kResultHeader;
        links_->links()[m].expect(sizeof(MeshHeader));
      }
      phase_ = Phase::kDone;
      break;
    case Phase::kDone:
      break;
  }
  rows_.sort();
  int32_t out_rows = own_pairs_;
  for (const Peer& peer : peers_) out_rows += peer.pairs;
  outputs_.resize(std::max(outputs_.size(),
                           static_cast<size_t>(out_rows) * static_cast<size_t>(shape_.hidden)));
  return ok_status();
}

StatusOr<bool> MeshExchange::next_work(ExpertWork* work, Stream& stream) {
  while (!rows_.next(work)) {
    if (phase_ == Phase::kDone) return false;
    FLOTILLA_RETURN_IF_ERROR(start_next_phase(stream));
  }
  work->x = TensorView(work_x_.data(), shape_.activation, {work_rows_, shape_.hidden});
  const auto out_rows = static_cast<int64_t>(outputs_.size()) / shape_.hidden;
  work->y = TensorView(outputs_.data(), DType::kF32, {out_rows, shape_.hidden});
  return true;
}

Status MeshExchange::combine(const TensorView& weights,
                             const TensorView& base,
                             const TensorView& y,
                             Stream& stream) {
  FLOTILLA_RETURN_IF_ERROR(run(true, [&] {
    // What is not sent now might never be: nobody looks after the links between steps.
    return std::all_of(peers_.begin(),
                       peers_.end(),
                       [](const Peer& p) { return p.reading == Peer::Reading::kNothing; }) &&
           std::none_of(links_->links().begin(), links_->links().end(), [](const MeshLink& l) {
             return l.unsent();
           });
  }));
  const TensorView rows(outputs_.data(), DType::kF32, {own_pairs_, shape_.hidden});
  moe_combine({.rows = rows, .weights = weights, .base = base, .y = y}, stream);
  return ok_status();
}

}  // namespace flotilla
