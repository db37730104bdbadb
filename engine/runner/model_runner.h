// The device thread: runs steps one after the other, keeps what only the device needs (block
// tables, last tokens, counts). submit() hands over a step and returns; its result comes by
// collect(), so that the next step can be planned while one runs. Threads: all members by the
// engine thread, but for those that say otherwise.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "common/ids.h"
#include "common/status.h"
#include "engine/step.h"

namespace flotilla {

class ModelRunner {
 public:
  virtual ~ModelRunner() = default;

  // Steps that may be submitted and not yet collected.
  virtual int depth() const = 0;
  // A step that fails takes all behind it in its epoch with it: they count on its tokens.
  virtual void submit(StepPlan plan) = 0;
  // The oldest finished step, or nullopt if none is finished. Readable (poll) when there may be
  // one: ready_fd().
  virtual std::optional<StepResult> collect() = 0;
  virtual int ready_fd() const = 0;

  // Runs `work` on the device thread behind everything submitted; ready_fd() tells of its end, too.
  // Used for what must not run beside a step: placing experts, connecting to a new group.
  virtual void post(std::function<void()> work) = 0;

  // Grows while the device does something: proof of life for the heartbeat. Threads: any.
  virtual uint64_t progress() const = 0;
};

}  // namespace flotilla
