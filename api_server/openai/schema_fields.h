// The tables behind schema.h: one row a field, with the function that checks it and puts it away.
// Private to this folder.
#pragma once

#include <string_view>
#include <unordered_map>

#include "api_server/openai/json_fields.h"
#include "api_server/openai/schema.h"

namespace flotilla::openai {

template <typename Request>
using FieldReader = Complaint (*)(const Field&, const SchemaLimits&, Request*);
template <typename Request>
using FieldTable = std::unordered_map<std::string_view, FieldReader<Request>>;

// Fields of GenerationFields that both generation endpoints read alike.
const FieldTable<GenerationFields>& common_fields();

// A complaint if `field` is one that other servers know, that would change the answer, and that
// this version cannot do. A switched-off form (null, false, 0, "", [], {}) is fine for most of
// them.
Complaint refuse_if_unsupported(const Field& field);

Complaint read_messages(const Field& field, std::vector<ChatMessage>* out);
Complaint read_template_kwargs(const Field& field, TemplateKwargs* out);
// Sets a variable that is not there yet.
void set_default_kwarg(TemplateKwargs* kwargs, std::string_view name, std::string_view json);

}  // namespace flotilla::openai
