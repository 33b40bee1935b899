// The rules that change the scores of the next token, in the order and arithmetic of Hugging Face
// transformers' logits processors.
#pragma once

#include <cstdint>
#include <vector>

#include "ops.h"
#include "random.h"
#include "settings.h"

namespace dq {

struct Tokens {
  const int32_t* data;
  int size;
};

// Whether scores must be log-probabilities of the whole row before `apply_rules`: the rules else
// only take tokens out, which a shift of all scores by one number would not change.
bool rules_need_probabilities(const Settings& settings);

// Changes the scores of one row after `prefix` (the start token included). True: the one token
// that is left is forced, its score is 0 and those of all others minus infinity.
bool apply_rules(const Settings& settings, Tokens source, Tokens prefix, float* scores,
                 int vocabulary);

// scores = log of softmax(scores).
void normalize(const Ops& ops, float* scores, int vocabulary);

// Temperature, top-k and top-p: what sampling leaves out gets minus infinity.
// `order` has room for a whole row of indices.
void apply_warpers(const Settings& settings, float* scores, int vocabulary,
                   std::vector<int32_t>& order);

}  // namespace dq
