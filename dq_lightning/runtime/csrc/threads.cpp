#include "threads.h"

#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

namespace dq {
namespace {

// About 50 microseconds: longer than any phase of a decoder step keeps a thread waiting, unless
// its neighbour lost its core.
constexpr int kSpins = 2000;

void pause() {
#if defined(__x86_64__) || defined(__i386__)
  _mm_pause();
#endif
}

}  // namespace

void Barrier::wait() {
  const uint32_t round = round_.load(std::memory_order_acquire);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) == size_ - 1) {
    arrived_.store(0, std::memory_order_relaxed);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      round_.store(round + 1, std::memory_order_release);
    }
    next_round_.notify_all();
    return;
  }
  for (int spin = 0; spin < kSpins; spin++) {
    if (round_.load(std::memory_order_acquire) != round) return check();
    pause();
  }
  std::unique_lock<std::mutex> lock(mutex_);
  next_round_.wait(lock, [&] {
    return broken_.load() || round_.load(std::memory_order_acquire) != round;
  });
  check();
}

void Barrier::give_up() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    broken_.store(true);
    round_.fetch_add(1, std::memory_order_release);
  }
  next_round_.notify_all();
}

void Barrier::check() const {
  if (broken_.load()) throw LeftBehind();
}

Threads::Threads(int size) {
  try {
    for (int index = 1; index < size; index++)
      workers_.emplace_back([this, index] { serve(index); });
  } catch (const std::system_error&) {
    stop();  // those that did start: a thread must not be destroyed while it runs
    throw std::runtime_error("The system has no room for " + std::to_string(size) +
                             " threads; write a smaller number.");
  } catch (...) {
    stop();
    throw;
  }
}

void Threads::stop() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void Threads::run(const std::function<void(int)>& work) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    work_ = &work;
    running_ = size();
    round_++;
  }
  wake_.notify_all();
  attempt(0);
  std::unique_lock<std::mutex> lock(mutex_);
  done_.wait(lock, [this] { return running_ == 0; });
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

void Threads::attempt(int index) {
  std::exception_ptr error;
  try {
    (*work_)(index);
  } catch (const LeftBehind&) {  // the exception that counts is that of the thread that failed
  } catch (...) {
    error = std::current_exception();
  }
  std::lock_guard<std::mutex> lock(mutex_);
  if (error && !error_) error_ = error;
  if (--running_ == 0) done_.notify_all();
}

void Threads::serve(int index) {
  uint64_t seen = 0;
  while (true) {
    {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [&] { return stopping_ || round_ != seen; });
      if (stopping_) return;
      seen = round_;
    }
    attempt(index);
  }
}

}  // namespace dq
