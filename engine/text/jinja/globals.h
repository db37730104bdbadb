// The functions that transformers gives a template: raise_exception, strftime_now, and Jinja's
// range, dict, namespace and joiner.
#pragma once

#include "engine/text/jinja/run.h"

namespace flotilla::text::jinja {

void add_globals(Scope& scope);

}  // namespace flotilla::text::jinja
