// runtime/settings.py's GenerationSettings: native.py fills the same fields in the same order.
#pragma once

#include <cstdint>

namespace dq {

struct Settings {
  int64_t seed;
  double temperature, top_p, length_penalty, repetition_penalty;
  const int32_t* eos_tokens;
  const int32_t* bad_tokens;
  int32_t num_eos_tokens, num_bad_tokens;
  int32_t start_token, num_beams, do_sample, top_k;
  int32_t early_stopping;  // 0, 1, or 2: "never"
  int32_t min_length, max_length;
  int32_t no_repeat_ngram_size, encoder_no_repeat_ngram_size;
  int32_t forced_bos_token, forced_eos_token;  // -1: none
  int32_t renormalize_logits, num_return_sequences;

  bool ends(int32_t token) const {
    for (int i = 0; i < num_eos_tokens; i++)
      if (eos_tokens[i] == token) return true;
    return false;
  }
};

}  // namespace dq
