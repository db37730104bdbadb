// Checks that read as shapes: expect(p.x, "x").shape({T, C}).dtype({DType::kF32, DType::kBf16}). A
// failure is a bug of the caller, never a user's input.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <string>

#include "kernels/tensor_view.h"

namespace flotilla {

class Expect {
 public:
  Expect(const TensorView& view, const char* name, SourceLocation where)
      : view_(view), name_(name), where_(where) {}

  const Expect& shape(std::initializer_list<int64_t> dims) const {
    const bool equal = static_cast<size_t>(view_.ndim) == dims.size() &&
                       std::equal(dims.begin(), dims.end(), view_.shape.begin());
    if (!equal) fail("has the wrong shape", dims);
    return *this;
  }
  const Expect& dtype(std::initializer_list<DType> allowed) const {
    check(std::find(allowed.begin(), allowed.end(), view_.dtype) != allowed.end(),
          std::string(name_) + " has the wrong type " + std::string(dtype_name(view_.dtype)),
          where_);
    return *this;
  }
  const Expect& contiguous() const {
    check(view_.contiguous(), std::string(name_) + " must be contiguous", where_);
    return *this;
  }

 private:
  void fail(const char* what, std::initializer_list<int64_t> wanted) const {
    std::string message = std::string(name_) + " " + what + ": got [";
    for (int i = 0; i < view_.ndim; ++i) {
      message += (i ? ", " : "") + std::to_string(view_.shape[static_cast<size_t>(i)]);
    }
    message += "], expected [";
    bool first = true;
    for (const int64_t n : wanted) {
      message += (first ? "" : ", ") + std::to_string(n);
      first = false;
    }
    check(false, message + "]", where_);
  }

  const TensorView& view_;
  const char* name_;
  SourceLocation where_;
};

inline Expect expect(const TensorView& view,
                     const char* name,
                     SourceLocation where = SourceLocation::current()) {
  return {view, name, where};
}

}  // namespace flotilla
