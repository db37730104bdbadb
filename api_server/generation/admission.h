// How many generation requests may be in this process at once (--max-concurrency).
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <utility>

namespace flotilla {

// Threads: any. Must outlive its permits.
class Admission {
 public:
  // Holds one place; gives it back when it is destroyed or released.
  class Permit {
   public:
    Permit(Permit&& other) noexcept : admission_(std::exchange(other.admission_, nullptr)) {}
    Permit& operator=(Permit&& other) noexcept {
      release();
      admission_ = std::exchange(other.admission_, nullptr);
      return *this;
    }
    ~Permit() { release(); }

    void release() {
      if (Admission* admission = std::exchange(admission_, nullptr)) admission->held_.fetch_sub(1);
    }

   private:
    friend class Admission;
    explicit Permit(Admission* admission) : admission_(admission) {}
    Admission* admission_;
  };

  explicit Admission(int64_t limit) : limit_(limit) {}

  // nullopt when all places are taken.
  std::optional<Permit> try_enter() {
    if (held_.fetch_add(1) >= limit_) {
      held_.fetch_sub(1);
      return std::nullopt;
    }
    return Permit(this);
  }

  int64_t held() const { return held_.load(); }
  int64_t limit() const { return limit_; }

 private:
  const int64_t limit_;
  std::atomic<int64_t> held_{0};
};

}  // namespace flotilla
