// What Python calls (runtime/native.py), with C's types alone. Functions that can fail return null
// or a negative number; dq_error() then says why.

#include <exception>
#include <new>
#include <stdexcept>
#include <string>

#include "generation.h"

namespace {

constexpr const char* kNoMemory =
    "There is not enough memory; shorter texts, fewer beams or fewer threads need less.";

thread_local std::string problem_text;
thread_local const char* error = "";

// Also where there is no memory for the text itself.
void remember(const char* problem) noexcept {
  try {
    problem_text = problem;
    error = problem_text.c_str();
  } catch (const std::bad_alloc&) {
    error = kNoMemory;
  }
}

dq::Sources split(const int32_t* tokens, const int32_t* lengths, int32_t n) {
  dq::Sources sources;
  for (int32_t i = 0; i < n; i++) {
    sources.push_back({tokens, lengths[i]});
    tokens += lengths[i];
  }
  return sources;
}

template <typename Value, typename Work>
Value attempt(Value failed, const Work& work) {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    error = kNoMemory;
  } catch (const std::exception& problem) {
    remember(problem.what());
  }
  return failed;
}

}  // namespace

extern "C" {

const char* dq_error() { return error; }

dq::Parts* dq_parts_new() { return new dq::Parts(); }
void dq_parts_delete(dq::Parts* parts) { delete parts; }

int32_t dq_parts_matrix(dq::Parts* parts, const char* name, const void* row_major, int32_t rows,
                        int32_t columns, int32_t bits, int32_t lowest, const float* scale,
                        const float* zero_point, int32_t divides) {
  return attempt(-1, [&] {
    const dq::Matrix matrix{rows,  columns, bits,       lowest, row_major,
                            scale, nullptr, zero_point, nullptr};
    parts->add_matrix(name, matrix, divides != 0);
    return 0;
  });
}

int32_t dq_parts_numbers(dq::Parts* parts, const char* name, const float* values, int64_t n) {
  return attempt(-1, [&] {
    parts->add_numbers(name, values, n);
    return 0;
  });
}

int32_t dq_parts_name(dq::Parts* parts, const char* name, const char* of) {
  return attempt(-1, [&] {
    parts->add_name(name, of);
    return 0;
  });
}

// Takes the parts over, whether it succeeds or not.
dq::Engine* dq_engine_new(dq::Parts* parts, const char* isa, int32_t threads) {
  std::unique_ptr<dq::Parts> owned(parts);
  return attempt(static_cast<dq::Engine*>(nullptr), [&] {
    const dq::Ops* ops = dq::dq_ops(isa);
    if (!ops) throw std::invalid_argument("this machine cannot run that instruction set");
    return new dq::Engine(std::move(owned), *ops, threads);
  });
}

void dq_engine_delete(dq::Engine* engine) { delete engine; }
int64_t dq_engine_bytes(const dq::Engine* engine) { return engine->bytes(); }
int32_t dq_engine_vocabulary(const dq::Engine* engine) { return engine->model().vocabulary; }
const char* dq_engine_isa(const dq::Engine* engine) { return engine->isa(); }

// For each source num_return_sequences results: their tokens in rows of max_length, how many there
// are, and their scores.
int32_t dq_generate(dq::Engine* engine, const int32_t* tokens, const int32_t* lengths, int32_t n,
                    const dq::Settings* settings, int32_t* out_tokens, int32_t* out_lengths,
                    float* out_scores) {
  return attempt(-1, [&] {
    for (const auto& results : engine->generate(split(tokens, lengths, n), *settings))
      for (const dq::Result& result : results) {
        std::copy(result.tokens.begin(), result.tokens.end(), out_tokens);
        out_tokens += settings->max_length;
        *out_lengths++ = static_cast<int32_t>(result.tokens.size());
        *out_scores++ = result.score;
      }
    return 0;
  });
}

// Rows of the vocabulary's size, target after target.
int32_t dq_logits(dq::Engine* engine, const int32_t* sources, const int32_t* source_lengths,
                  const int32_t* targets, const int32_t* target_lengths, int32_t n, float* out) {
  return attempt(-1, [&] {
    engine->logits(split(sources, source_lengths, n), split(targets, target_lengths, n), out);
    return 0;
  });
}

}  // extern "C"
