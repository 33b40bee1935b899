#include "scores.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace dq {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

void forbid(float* scores, int vocabulary, int32_t token) {
  if (token >= 0 && token < vocabulary) scores[token] = kNever;
}

// Each token of the prefix once, however often it stands there.
void penalize_repetition(float penalty, Tokens prefix, float* scores, int vocabulary) {
  std::vector<int32_t> tokens(prefix.data, prefix.data + prefix.size);
  std::sort(tokens.begin(), tokens.end());
  tokens.erase(std::unique(tokens.begin(), tokens.end()), tokens.end());
  for (const int32_t token : tokens) {
    if (token < 0 || token >= vocabulary) continue;
    float& score = scores[token];
    score = score < 0 ? score * penalty : score / penalty;
  }
}

// Forbids what would end an n-gram of `text` that begins as the prefix ends.
void forbid_ngrams(int size, Tokens text, Tokens prefix, float* scores, int vocabulary) {
  if (prefix.size + 1 < size) return;
  const int32_t* suffix = prefix.data + prefix.size - (size - 1);
  for (int first = 0; first + size <= text.size; first++)
    if (std::equal(suffix, prefix.data + prefix.size, text.data + first))
      forbid(scores, vocabulary, text.data[first + size - 1]);
}

void force(int32_t token, float* scores, int vocabulary) {
  std::fill(scores, scores + vocabulary, kNever);
  if (token < vocabulary) scores[token] = 0.0f;
}

void keep_top_k(int k, float* scores, int vocabulary, std::vector<int32_t>& order) {
  if (k >= vocabulary) return;
  std::iota(order.begin(), order.begin() + vocabulary, 0);
  std::nth_element(order.begin(), order.begin() + (k - 1), order.begin() + vocabulary,
                   [scores](int32_t a, int32_t b) { return scores[a] > scores[b]; });
  const float least = scores[order[static_cast<size_t>(k - 1)]];
  for (int token = 0; token < vocabulary; token++)
    if (scores[token] < least) scores[token] = kNever;
}

// Takes the least likely tokens out whose probabilities add up to at most 1 - p.
void keep_top_p(double p, int keep, float* scores, int vocabulary, std::vector<int32_t>& order) {
  int kept = 0;  // with a probability above 0
  for (int token = 0; token < vocabulary; token++)
    if (scores[token] > kNever) order[static_cast<size_t>(kept++)] = token;
  std::sort(order.begin(), order.begin() + kept, [scores](int32_t a, int32_t b) {
    return scores[a] != scores[b] ? scores[a] < scores[b] : a < b;
  });
  if (kept == 0) return;
  const float largest = scores[order[static_cast<size_t>(kept - 1)]];
  double sum = 0.0, below = 0.0;
  for (int i = 0; i < kept; i++) sum += std::exp(scores[order[static_cast<size_t>(i)]] - largest);
  for (int i = 0; i < kept - keep; i++) {
    float& score = scores[order[static_cast<size_t>(i)]];
    below += std::exp(score - largest) / sum;
    if (below > 1.0 - p) return;
    score = kNever;
  }
}

}  // namespace

bool rules_need_probabilities(const Settings& settings) {
  return settings.repetition_penalty != 1.0 || settings.renormalize_logits;
}

bool apply_rules(const Settings& settings, Tokens source, Tokens prefix, float* scores,
                 int vocabulary) {
  if (settings.repetition_penalty != 1.0)
    penalize_repetition(static_cast<float>(settings.repetition_penalty), prefix, scores,
                        vocabulary);
  if (settings.no_repeat_ngram_size > 0)
    forbid_ngrams(settings.no_repeat_ngram_size, prefix, prefix, scores, vocabulary);
  if (settings.encoder_no_repeat_ngram_size > 0)
    forbid_ngrams(settings.encoder_no_repeat_ngram_size, source, prefix, scores, vocabulary);
  for (int i = 0; i < settings.num_bad_tokens; i++)
    forbid(scores, vocabulary, settings.bad_tokens[i]);
  if (prefix.size < settings.min_length)
    for (int i = 0; i < settings.num_eos_tokens; i++)
      forbid(scores, vocabulary, settings.eos_tokens[i]);
  const bool last = prefix.size == settings.max_length - 1;
  const bool forces_bos = prefix.size == 1 && settings.forced_bos_token >= 0;
  const bool forces_eos = last && settings.forced_eos_token >= 0;
  if (forces_bos) force(settings.forced_bos_token, scores, vocabulary);
  if (forces_eos) force(settings.forced_eos_token, scores, vocabulary);
  return forces_bos || forces_eos;
}

void normalize(const Ops& ops, float* scores, int vocabulary) {
  const float log_sum = ops.log_sum_exp(scores, vocabulary);
  for (int token = 0; token < vocabulary; token++) scores[token] -= log_sum;
}

void apply_warpers(const Settings& settings, float* scores, int vocabulary,
                   std::vector<int32_t>& order) {
  const int keep = settings.num_beams > 1 ? std::max(2, settings.num_eos_tokens + 1) : 1;
  const float temperature = static_cast<float>(settings.temperature);
  if (temperature != 1.0f)
    for (int token = 0; token < vocabulary; token++) scores[token] /= temperature;
  if (settings.top_k > 0)
    keep_top_k(std::max(settings.top_k, keep), scores, vocabulary, order);
  if (settings.top_p < 1.0) keep_top_p(settings.top_p, keep, scores, vocabulary, order);
}

}  // namespace dq
