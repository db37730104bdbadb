// Numbers that could be swapped by mistake are types.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>

namespace flotilla {

template <typename Tag, typename Value>
struct NamedId {
  Value value{};

  constexpr NamedId() = default;
  constexpr explicit NamedId(Value v) : value(v) {}
  constexpr auto operator<=>(const NamedId&) const = default;
};

using Rank = NamedId<struct RankTag, int32_t>;  // stable id of a data-parallel rank, 0 … N-1
using ExpertId = NamedId<struct ExpertTag, int32_t>;  // routed expert of a layer, 0 … E-1
using BlockId = NamedId<struct BlockTag, int32_t>;    // KV block of this rank's pool
using SequenceId =
    NamedId<struct SequenceTag, uint64_t>;  // one sequence of this engine, never reused
using Epoch =
    NamedId<struct EpochTag, uint64_t>;  // life of one group of ranks (design: step clock)
using StepIndex = NamedId<struct StepTag, uint64_t>;  // step within an epoch, from 0

}  // namespace flotilla

template <typename Tag, typename Value>
struct std::hash<flotilla::NamedId<Tag, Value>> {
  size_t operator()(const flotilla::NamedId<Tag, Value>& id) const {
    return std::hash<Value>{}(id.value);
  }
};
