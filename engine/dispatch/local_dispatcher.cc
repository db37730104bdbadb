#include "engine/dispatch/local_dispatcher.h"

namespace flotilla {

StatusOr<Placement> LocalDispatcher::submit(GenerationRequest request,
                                            const DispatchOptions& options,
                                            TokenSink* sink) {
  if (options.rank && (options.rank->value < 0 || options.rank->value >= num_ranks_)) {
    return invalid_argument("data_parallel_rank is " + std::to_string(options.rank->value) +
                            ", the ranks are 0 to " + std::to_string(num_ranks_ - 1));
  }
  if (options.rank && *options.rank != rank_) {
    return invalid_argument("data_parallel_rank is " + std::to_string(options.rank->value) +
                            ", this server is rank " + std::to_string(rank_.value) +
                            ": every rank has a port of its own");
  }
  FLOTILLA_RETURN_IF_ERROR(engine_.submit(std::move(request), sink));
  return Placement{.prefill = rank_, .decode = rank_};
}

}  // namespace flotilla
