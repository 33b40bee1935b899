#include "generation.h"

#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <string>

namespace dq {
namespace {

// More rows of a step than about 32 (8 sentences of 4 beams) do not make a matrix product faster.
constexpr size_t kMostTogether = 8;

Model read(const Parts& parts) {
  try {
    return Model(parts);
  } catch (const std::invalid_argument& problem) {
    throw std::invalid_argument("The packed student does not fit together: " +
                                std::string(problem.what()) + ".");
  }
}

}  // namespace

class Engine::Group {
 public:
  Group(const Model& model, const Ops& ops, const Sources& sources, const Numbers& numbers,
        int threads)
      : model_(model), ops_(ops), sentences_(lengths(sources, numbers)) {
    for (const int number : numbers) {
      const Tokens& source = sources[static_cast<size_t>(number)];
      tokens_.insert(tokens_.end(), source.data, source.data + source.size);
    }
    for (const Layer& layer : model.decoder.layers)
      memory_.emplace_back(sentences_, layer.cross, true);
    encoder_ = std::make_unique<Encoder>(model, ops, sentences_, tokens_.data(), threads);
  }

  void encode(const Member& member) {
    encoder_->run(member, memory_);
    member.meet();
    if (member.index == 0) encoder_.reset();
  }

  std::unique_ptr<Decoder> make_decoder(int slots, int positions, int threads) const {
    return std::make_unique<Decoder>(model_, ops_, sentences_, memory_, slots, positions, threads);
  }

  // One search a sentence; every member calls it.
  void begin(const Member& member, const Sources& sources, const Numbers& numbers,
             const Settings& settings) {
    if (member.index == 0) {
      int slots = 0;
      for (size_t i = 0; i < numbers.size(); i++) {
        const Tokens& source = sources[static_cast<size_t>(numbers[i])];
        searches_.push_back(make_search(ops_, settings, source, model_.vocabulary));
        first_slot_.push_back(slots);
        slots += static_cast<int>(searches_.back()->rows().size());
        add_rows(static_cast<int>(i));
      }
      decoder_ = make_decoder(slots, settings.max_length - 1, member.size);
    }
    member.meet();
  }

  void search(const Member& member) {
    for (int position = 0; !rows_.empty(); position++) {
      decoder_->step(member, rows_, position);
      const int rows = static_cast<int>(rows_.size());
      for (int row = member.begin(rows); row < member.end(rows); row++) {
        const Row& own = rows_[static_cast<size_t>(row)];
        const size_t sentence = static_cast<size_t>(own.sentence);
        searches_[sentence]->read(own.slot - first_slot_[sentence], decoder_->logits(row));
      }
      member.meet();
      if (member.index == 0) advance(position);
      member.meet();
    }
  }

  std::vector<Result> results(size_t sentence) const { return searches_[sentence]->results(); }

 private:
  static std::vector<int> lengths(const Sources& sources, const Numbers& numbers) {
    std::vector<int> lengths;
    for (const int number : numbers) lengths.push_back(sources[static_cast<size_t>(number)].size);
    return lengths;
  }

  void add_rows(int sentence) {
    const size_t number = static_cast<size_t>(sentence);
    int slot = first_slot_[number];
    for (const NextRow& row : searches_[number]->rows())
      rows_.push_back({sentence, slot++, row.token});
  }

  // Sentences that are finished leave the batch.
  void advance(int position) {
    rows_.clear();
    for (size_t sentence = 0; sentence < searches_.size(); sentence++) {
      Search& search = *searches_[sentence];
      if (search.rows().empty()) continue;
      search.advance();
      const int first = first_slot_[sentence];
      for (int row = 0; row < static_cast<int>(search.rows().size()); row++)
        decoder_->keep(first + row, first + search.rows()[static_cast<size_t>(row)].parent,
                       position);
      add_rows(static_cast<int>(sentence));
    }
    decoder_->commit(position);
  }

  const Model& model_;
  const Ops& ops_;
  const Sequences sentences_;
  std::vector<int32_t> tokens_;
  std::vector<KeyValues> memory_;
  std::unique_ptr<Encoder> encoder_;
  std::unique_ptr<Decoder> decoder_;
  std::vector<std::unique_ptr<Search>> searches_;
  std::vector<int> first_slot_;  // of each sentence
  std::vector<Row> rows_;
};

Engine::Engine(std::unique_ptr<Parts> parts, const Ops& ops, int threads)
    : parts_(std::move(parts)), model_(read(*parts_)), ops_(ops), threads_(threads) {}

void Engine::check(const Stack& stack, const char* what, Tokens tokens) const {
  const auto refuse = [what](const std::string& problem) {
    throw std::invalid_argument("A " + std::string(what) + problem);
  };
  if (tokens.size < 1) refuse(" has no tokens.");
  const int positions = stack.num_positions - stack.position_offset;
  if (stack.num_positions > 0 && tokens.size > positions)
    refuse(" has " + std::to_string(tokens.size) + " tokens, and the model has " +
           std::to_string(positions) + " positions.");
  for (int i = 0; i < tokens.size; i++)
    if (tokens.data[i] < 0 || tokens.data[i] >= stack.embedding.rows)
      refuse(" has the token " + std::to_string(tokens.data[i]) + ", and the vocabulary has " +
             std::to_string(stack.embedding.rows) + ".");
}

void Engine::check(const Sources& sources, const Settings& settings) const {
  const Stack& stack = model_.decoder;
  const int positions = stack.num_positions - stack.position_offset;
  for (const Tokens& source : sources) check(model_.encoder, "source", source);
  if (stack.num_positions > 0 && settings.max_length - 1 > positions)
    throw std::invalid_argument("max_length=" + std::to_string(settings.max_length) +
                                " is more than the model's positions allow; write at most " +
                                std::to_string(positions + 1) + ".");
  if (settings.start_token < 0 || settings.start_token >= stack.embedding.rows)
    throw std::invalid_argument("decoder_start_token_id is not in the vocabulary.");
  for (const int32_t token : {settings.forced_bos_token, settings.forced_eos_token})
    if (token >= model_.vocabulary)
      throw std::invalid_argument("A forced token is not in the vocabulary.");
}

std::vector<Engine::Numbers> Engine::group(const Sources& sources, int teams) const {
  Numbers order(sources.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    return sources[static_cast<size_t>(a)].size > sources[static_cast<size_t>(b)].size;
  });
  // At least two groups a team, so that a fast team does a part of a slow one's work.
  const size_t share = order.size() / static_cast<size_t>(2 * teams);
  const size_t together = std::max<size_t>(1, std::min(kMostTogether, share));
  std::vector<Numbers> groups;
  for (size_t first = 0; first < order.size(); first += together) {
    const size_t last = std::min(first + together, order.size());
    groups.emplace_back(order.begin() + static_cast<int64_t>(first),
                        order.begin() + static_cast<int64_t>(last));
  }
  return groups;
}

template <typename Work>
void Engine::for_each_group(int teams, const std::vector<Numbers>& groups, const Work& work) {
  struct Team {
    explicit Team(int size) : barrier(size) {}
    Barrier barrier;
    size_t group = 0;
    std::unique_ptr<Group> shared;
  };
  const int size = threads_.size() / teams;
  std::vector<std::unique_ptr<Team>> all;
  for (int i = 0; i < teams; i++) all.push_back(std::make_unique<Team>(size));
  std::atomic<size_t> next{0};
  threads_.run([&](int thread) {
    if (thread >= teams * size) return;
    Team& team = *all[static_cast<size_t>(thread / size)];
    const Member member{&team.barrier, thread % size, size};
    try {
      while (true) {
        if (member.index == 0) team.group = next++;
        member.meet();
        if (team.group >= groups.size()) return;
        work(member, groups[team.group], team.shared);
        member.meet();
      }
    } catch (...) {
      team.barrier.give_up();
      throw;
    }
  });
}

std::vector<std::vector<Result>> Engine::generate(const Sources& sources,
                                                  const Settings& settings) {
  check(sources, settings);
  std::vector<std::vector<Result>> results(sources.size());
  if (sources.empty()) return results;
  std::lock_guard<std::mutex> lock(mutex_);
  const int teams = static_cast<int>(std::min<size_t>(sources.size(), threads_.size()));
  const auto work = [&](const Member& member, const Numbers& numbers,
                        std::unique_ptr<Group>& shared) {
    if (member.index == 0)
      shared = std::make_unique<Group>(model_, ops_, sources, numbers, member.size);
    member.meet();
    shared->encode(member);
    shared->begin(member, sources, numbers, settings);
    shared->search(member);
    if (member.index != 0) return;
    for (size_t i = 0; i < numbers.size(); i++)
      results[static_cast<size_t>(numbers[i])] = shared->results(i);
  };
  for_each_group(teams, group(sources, teams), work);
  return results;
}

void Engine::logits(const Sources& sources, const Sources& targets, float* out) {
  for (const Tokens& source : sources) check(model_.encoder, "source", source);
  for (const Tokens& target : targets) check(model_.decoder, "target", target);
  std::lock_guard<std::mutex> lock(mutex_);
  std::vector<Numbers> groups;
  std::vector<float*> places;
  for (size_t i = 0; i < sources.size(); i++) {
    groups.push_back({static_cast<int>(i)});
    places.push_back(out);
    out += int64_t{targets[i].size} * model_.vocabulary;
  }
  const auto work = [&](const Member& member, const Numbers& numbers,
                        std::unique_ptr<Group>& shared) {
    const size_t number = static_cast<size_t>(numbers[0]);
    const Tokens& target = targets[number];
    shared = std::make_unique<Group>(model_, ops_, sources, numbers, 1);
    shared->encode(member);
    const auto decoder = shared->make_decoder(1, target.size, 1);
    for (int position = 0; position < target.size; position++) {
      decoder->step(member, {{0, 0, target.data[position]}}, position);
      std::copy(decoder->logits(0), decoder->logits(0) + model_.vocabulary,
                places[number] + int64_t{position} * model_.vocabulary);
      decoder->keep(0, 0, position);
      decoder->commit(position);
    }
  };
  for_each_group(threads_.size(), groups, work);
}

}  // namespace dq
