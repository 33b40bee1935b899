#include <limits>

#include "search.h"

namespace dq {
namespace {

// Each row is one text, which takes its likeliest token or draws one.
class TokenSearch final : public Search {
 public:
  TokenSearch(const Ops& ops, const Settings& settings, Tokens source, int vocabulary)
      : Search(ops, settings, source, vocabulary) {
    const int texts = settings.do_sample ? settings.num_return_sequences : 1;
    for (int text = 0; text < texts; text++) {
      rows_.push_back({text, settings.start_token});
      live_.push_back(text);
      texts_.push_back({{settings.start_token}, 0, random_of(text), {}});
      texts_.back().tokens.reserve(static_cast<size_t>(settings.max_length));
      if (settings.do_sample) texts_.back().order.resize(static_cast<size_t>(vocabulary));
    }
  }

  void read(int row, float* logits) override {
    Text& text = texts_[static_cast<size_t>(live_[static_cast<size_t>(row)])];
    const Tokens prefix{text.tokens.data(), static_cast<int>(text.tokens.size())};
    apply_rules(settings_, source_, prefix, logits, vocabulary_);
    if (settings_.do_sample) {
      apply_warpers(settings_, logits, vocabulary_, text.order);
      text.next = draw(logits, text.random);
    } else {
      float best;
      ops_.top_k(logits, vocabulary_, 1, &best, &text.next);
    }
  }

  void advance() override {
    std::vector<int> live;
    rows_.clear();
    for (int row = 0; row < static_cast<int>(live_.size()); row++) {
      const int number = live_[static_cast<size_t>(row)];
      Text& text = texts_[static_cast<size_t>(number)];
      text.tokens.push_back(text.next);
      const bool full = static_cast<int>(text.tokens.size()) >= settings_.max_length;
      if (full || settings_.ends(text.next)) continue;
      rows_.push_back({row, text.next});
      live.push_back(number);
    }
    live_ = std::move(live);
  }

  std::vector<Result> results() const override {
    std::vector<Result> results;
    for (const Text& text : texts_)
      results.push_back({{text.tokens.begin() + 1, text.tokens.end()}, 0.0f});
    return results;
  }

 private:
  struct Text {
    std::vector<int32_t> tokens;
    int32_t next;
    Random random;
    std::vector<int32_t> order;
  };

  Random random_of(int text) const {
    Random random(static_cast<uint64_t>(settings_.seed));
    for (int i = 0; i < source_.size; i++) random.absorb(static_cast<uint64_t>(source_.data[i]));
    random.absorb(static_cast<uint64_t>(text));
    return random;
  }

  int32_t draw(const float* scores, Random& random) const {
    constexpr float never = -std::numeric_limits<float>::infinity();
    double best = -std::numeric_limits<double>::infinity();
    int32_t drawn = 0;
    for (int token = 0; token < vocabulary_; token++) {
      if (scores[token] == never) continue;
      const double key = scores[token] + random.gumbel();
      if (key > best) best = key, drawn = token;
    }
    return drawn;
  }

  std::vector<int> live_;
  std::vector<Text> texts_;
};

}  // namespace

std::unique_ptr<Search> make_token_search(const Ops& ops, const Settings& settings, Tokens source,
                                          int vocabulary) {
  return std::make_unique<TokenSearch>(ops, settings, source, vocabulary);
}

std::unique_ptr<Search> make_search(const Ops& ops, const Settings& settings, Tokens source,
                                    int vocabulary) {
  const auto make = settings.num_beams > 1 ? make_beam_search : make_token_search;
  return make(ops, settings, source, vocabulary);
}

}  // namespace dq
