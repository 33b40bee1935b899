#include <algorithm>
#include <cmath>

#include "search.h"

namespace dq {
namespace {

// What transformers subtracts from a score that must not win, in float32 like the scores: sums
// with it round, and whose scores are then equal decides who comes first.
constexpr float kOut = -1.0e9f;

struct Candidate {
  float score;  // sum of log-probabilities
  double key;   // what it is ranked by: its score, or when sampling its score and a Gumbel draw
  int32_t row, token;
};

struct Beam {
  std::vector<int32_t> tokens;  // the start token included
  float score;
  bool finished;
};

class BeamSearch final : public Search {
 public:
  BeamSearch(const Ops& ops, const Settings& settings, Tokens source, int vocabulary)
      : Search(ops, settings, source, vocabulary),
        beams_(settings.num_beams),
        kept_(std::max(2, 1 + settings.num_eos_tokens) * settings.num_beams),
        kept_a_row_(std::min(kept_, vocabulary)),
        values_(static_cast<size_t>(beams_ * kept_a_row_)),
        tokens_(static_cast<size_t>(beams_ * kept_a_row_)),
        keys_(static_cast<size_t>(beams_ * kept_a_row_)) {
    for (int beam = 0; beam < beams_; beam++) {
      rows_.push_back({beam, settings.start_token});
      // All beams are equal at first: only one of them may go on.
      running_.push_back({{settings.start_token}, beam == 0 ? 0.0f : kOut, false});
      best_.push_back({{settings.start_token}, kOut, false});
    }
    next_running_ = running_;
    for (auto* beams : {&running_, &next_running_})
      for (Beam& beam : *beams) beam.tokens.reserve(static_cast<size_t>(settings.max_length));
    if (settings.do_sample)
      orders_.assign(static_cast<size_t>(beams_), std::vector<int32_t>(vocabulary));
    random_ = Random(static_cast<uint64_t>(settings.seed));
    for (int i = 0; i < source.size; i++) random_.absorb(static_cast<uint64_t>(source.data[i]));
  }

  void read(int row, float* logits) override {
    const Beam& beam = running_[static_cast<size_t>(row)];
    const Tokens prefix{beam.tokens.data(), static_cast<int>(beam.tokens.size())};
    const bool whole = settings_.do_sample || rules_need_probabilities(settings_);
    float log_sum = 0.0f;
    if (whole) {
      normalize(ops_, logits, vocabulary_);
    } else {
      log_sum = ops_.log_sum_exp(logits, vocabulary_);
    }
    if (apply_rules(settings_, source_, prefix, logits, vocabulary_)) log_sum = 0.0f;
    if (settings_.do_sample)
      apply_warpers(settings_, logits, vocabulary_, orders_[static_cast<size_t>(row)]);
    if (settings_.renormalize_logits) normalize(ops_, logits, vocabulary_);
    const size_t first = static_cast<size_t>(row * kept_a_row_);
    if (settings_.do_sample) return draw(row, logits, first);
    ops_.top_k(logits, vocabulary_, kept_a_row_, &values_[first], &tokens_[first]);
    for (size_t i = first; i < first + static_cast<size_t>(kept_a_row_); i++) {
      values_[i] = (values_[i] - log_sum) + beam.score;
      keys_[i] = values_[i];
    }
  }

  void advance() override {
    gather_candidates();
    const int length = static_cast<int>(running_[0].tokens.size());
    bool all_stop = true;
    for (size_t i = 0; i < candidates_.size(); i++) {
      stops_[i] = settings_.ends(candidates_[i].token) || length + 1 >= settings_.max_length;
      all_stop = all_stop && stops_[i];
    }
    finish(length);
    run_on();
    improvable_ = improvable_ && can_improve(length + 1);
    if (!improvable_ || (full() && settings_.early_stopping == 1) || all_stop) rows_.clear();
  }

  std::vector<Result> results() const override {
    std::vector<Result> results;
    for (int i = 0; i < settings_.num_return_sequences; i++) {
      const Beam& beam = best_[static_cast<size_t>(i)];
      results.push_back({{beam.tokens.begin() + 1, beam.tokens.end()}, beam.score});
    }
    return results;
  }

 private:
  // The tokens of one row by score plus Gumbel draw: together a draw without replacement.
  void draw(int row, float* scores, size_t first) {
    Random random = random_;
    random.absorb(running_[0].tokens.size());
    random.absorb(static_cast<uint64_t>(row));
    std::vector<double> keys(static_cast<size_t>(vocabulary_));
    std::vector<int32_t>& order = orders_[static_cast<size_t>(row)];
    const float own = running_[static_cast<size_t>(row)].score;
    for (int token = 0; token < vocabulary_; token++) {
      scores[token] += own;
      keys[static_cast<size_t>(token)] = scores[token] + random.gumbel();
      order[static_cast<size_t>(token)] = token;
    }
    std::partial_sort(order.begin(), order.begin() + kept_a_row_, order.end(),
                      [&](int32_t a, int32_t b) {
                        return keys[static_cast<size_t>(a)] > keys[static_cast<size_t>(b)];
                      });
    for (size_t i = 0; i < static_cast<size_t>(kept_a_row_); i++) {
      tokens_[first + i] = order[i];
      values_[first + i] = scores[order[i]];
      keys_[first + i] = keys[static_cast<size_t>(order[i])];
    }
  }

  // The best of all rows together; equal ones in the order of row and token.
  void gather_candidates() {
    candidates_.clear();
    for (int row = 0; row < beams_; row++)
      for (int i = 0; i < kept_a_row_; i++) {
        const size_t place = static_cast<size_t>(row * kept_a_row_ + i);
        candidates_.push_back({values_[place], keys_[place], row, tokens_[place]});
      }
    std::sort(candidates_.begin(), candidates_.end(), [](const Candidate& a, const Candidate& b) {
      if (a.key != b.key) return a.key > b.key;
      return a.row != b.row ? a.row < b.row : a.token < b.token;
    });
    candidates_.resize(std::min(static_cast<size_t>(kept_), candidates_.size()));
    stops_.assign(candidates_.size(), false);
  }

  // Merges candidates that stop, if they are among the first, with the best finished beams.
  void finish(int length) {
    const float divisor = static_cast<float>(std::pow(length, settings_.length_penalty));
    const bool closed = full() && settings_.early_stopping == 1;
    std::vector<std::pair<float, int>> merged;  // place: a beam of best_, or after them a candidate
    for (int i = 0; i < beams_; i++) merged.push_back({best_[static_cast<size_t>(i)].score, i});
    for (int i = 0; i < static_cast<int>(candidates_.size()); i++) {
      float score = candidates_[static_cast<size_t>(i)].score / divisor;
      if (closed) score += kOut;
      if (!improvable_) score += kOut;
      if (!finishes(i)) score += kOut;
      merged.push_back({score, beams_ + i});
    }
    std::stable_sort(merged.begin(), merged.end(),
                     [](const auto& a, const auto& b) { return a.first > b.first; });
    std::vector<Beam> best;
    for (int i = 0; i < beams_; i++) {
      const auto [score, place] = merged[static_cast<size_t>(i)];
      best.push_back(place < beams_ ? best_[static_cast<size_t>(place)]
                                    : continued(place - beams_, score));
    }
    best_ = std::move(best);
  }

  bool finishes(int candidate) const {
    return candidate < beams_ && stops_[static_cast<size_t>(candidate)];
  }

  Beam continued(int number, float score) const {
    const Candidate& candidate = candidates_[static_cast<size_t>(number)];
    Beam beam{running_[static_cast<size_t>(candidate.row)].tokens, score, finishes(number)};
    beam.tokens.push_back(candidate.token);
    return beam;
  }

  // The best candidates that do not stop are the next rows.
  void run_on() {
    std::vector<std::pair<float, int>> order;
    for (size_t i = 0; i < candidates_.size(); i++)
      order.push_back({candidates_[i].score + (stops_[i] ? kOut : 0.0f), static_cast<int>(i)});
    std::stable_sort(order.begin(), order.end(),
                     [](const auto& a, const auto& b) { return a.first > b.first; });
    for (int beam = 0; beam < beams_; beam++) {
      const auto [score, number] = order[static_cast<size_t>(beam)];
      const Candidate& candidate = candidates_[static_cast<size_t>(number)];
      Beam& next = next_running_[static_cast<size_t>(beam)];
      next.tokens = running_[static_cast<size_t>(candidate.row)].tokens;
      next.tokens.push_back(candidate.token);
      next.score = score;
      rows_[static_cast<size_t>(beam)] = {candidate.row, candidate.token};
    }
    std::swap(running_, next_running_);
  }

  bool full() const {
    return std::all_of(best_.begin(), best_.end(), [](const Beam& beam) { return beam.finished; });
  }

  // Whether the best running beam may still become better than a finished one.
  bool can_improve(int length) const {
    const bool longest = settings_.early_stopping == 2 && settings_.length_penalty > 0;
    const int reachable = (longest ? settings_.max_length : length) - 1;
    const float divisor = static_cast<float>(std::pow(reachable, settings_.length_penalty));
    float worst = best_[0].score;
    for (const Beam& beam : best_) worst = std::min(worst, beam.score);
    const float possible = running_[0].score / divisor;
    return std::any_of(best_.begin(), best_.end(), [&](const Beam& beam) {
      return possible > (beam.finished ? worst : kOut);
    });
  }

  const int beams_, kept_, kept_a_row_;
  std::vector<float> values_;
  std::vector<int32_t> tokens_;
  std::vector<double> keys_;
  std::vector<Candidate> candidates_;
  std::vector<bool> stops_;
  std::vector<Beam> running_, next_running_, best_;
  std::vector<std::vector<int32_t>> orders_;
  Random random_{0};
  bool improvable_ = true;
};

}  // namespace

std::unique_ptr<Search> make_beam_search(const Ops& ops, const Settings& settings, Tokens source,
                                         int vocabulary) {
  return std::make_unique<BeamSearch>(ops, settings, source, vocabulary);
}

}  // namespace dq
