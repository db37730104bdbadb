#include "engine/rank_engine.h"

#include <thread>

#include "engine/rank_loop.h"

namespace flotilla {

class RankEngine::Impl {
 public:
  Impl(RankEngineOptions options,
       RankSetup setup,
       std::unique_ptr<MeshExchange> mesh,
       std::unique_ptr<ClockClient> clock,
       EngineMetrics* metrics)
      : config(setup.files.config),
        digest(setup.files.digest),
        limits(setup.limits),
        loop(std::move(options), std::move(setup), std::move(mesh), std::move(clock), metrics),
        thread([this] { loop.run(); }) {}

  ~Impl() { stop(); }

  void stop() {
    loop.inbox().stop();
    if (thread.joinable()) thread.join();
  }

  const ModelConfig config;
  const std::string digest;
  const EngineLimits limits;
  RankLoop loop;
  std::thread thread;
};

RankEngine::RankEngine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
RankEngine::~RankEngine() = default;

StatusOr<std::unique_ptr<RankEngine>> RankEngine::create(RankEngineOptions options,
                                                         EngineMetrics* metrics) {
  StatusOr<RankSetup> setup = set_up_rank(options);
  if (!setup.ok()) return setup.status();
  std::unique_ptr<MeshExchange> mesh;
  if (setup->in_group) {
    StatusOr<std::unique_ptr<MeshExchange>> made = MeshExchange::create(
        {.rank = options.group.rank,
         .secret = options.group.cluster_secret,
         .directory = options.group.mesh_directory,
         .deadline = options.group.mesh_deadline},
        {.hidden = setup->files.config.hidden_size, .activation = options.activation});
    if (!made.ok()) return made.status();
    mesh = std::move(*made);
  }
  std::unique_ptr<ClockClient> clock;
  if (!options.group.clock_socket.empty()) {
    StatusOr<std::unique_ptr<ClockClient>> client =
        ClockClient::connect(options.group.clock_socket);
    if (!client.ok()) return client.status();
    clock = std::move(*client);
  }
  return std::unique_ptr<RankEngine>(new RankEngine(std::make_unique<Impl>(
      std::move(options), std::move(*setup), std::move(mesh), std::move(clock), metrics)));
}

Status RankEngine::submit(GenerationRequest request, TokenSink* sink) {
  FLOTILLA_RETURN_IF_ERROR(check_request(request, impl_->limits));
  return impl_->loop.inbox().submit(std::move(request), sink);
}
void RankEngine::cancel(TokenSink* sink, uint64_t id) { impl_->loop.inbox().cancel(sink, id); }
EngineLoad RankEngine::load() const { return impl_->loop.load(); }
EngineHealth RankEngine::health() const { return impl_->loop.health(); }
EngineLimits RankEngine::limits() const { return impl_->limits; }
void RankEngine::begin_drain() { impl_->loop.inbox().drain(); }
bool RankEngine::drained() const { return impl_->loop.drained(); }
bool RankEngine::wait_drained(std::chrono::steady_clock::time_point deadline) {
  return impl_->loop.wait_until(deadline, [](const RankLoop& loop) { return loop.drained(); });
}
void RankEngine::stop() { impl_->stop(); }
const ModelConfig& RankEngine::config() const { return impl_->config; }
const std::string& RankEngine::model_digest() const { return impl_->digest; }
bool RankEngine::wait_started(std::chrono::steady_clock::time_point deadline) {
  return impl_->loop.wait_until(deadline, [](const RankLoop& loop) { return loop.started(); });
}
bool RankEngine::wait_ended(std::chrono::steady_clock::time_point deadline) {
  return impl_->loop.wait_until(deadline, [](const RankLoop& loop) { return loop.drained() || loop.failed() || loop.ended(); });
}
Status RankEngine::failure() const { return impl_->loop.failure(); }
void RankEngine::front_is_up() { impl_->loop.inbox().front_is_up(); }

}  // namespace flotilla
