// Methods of strings, dicts and lists that a sandboxed template may call: none that changes its
// object.
#pragma once

#include <string>

#include "engine/text/jinja/run.h"

namespace flotilla::text::jinja {

// The method as a function, or undefined if the object's type has none of that name. Fails for one
// that Jinja's sandbox forbids.
Value bound_method(Run& run, const Value& object, const std::string& name);

}  // namespace flotilla::text::jinja
