// A host in C++: loads an artifact, answers batches of several sizes on several threads, and prints its counters.
//
//   host model.pt 'f32[N, 64]' ['i64[N, 16]' ...] [--threads 4] [--calls 200]
//
// Inputs are written in the file's order: 'f32[N, 64]' is what `dendrofx inspect` prints as `x: float32[N, 64]`; N is drawn anew for
// every call. Every answer is compared with that of the same batch on one thread. Nothing of Python is needed to run it.

#include <ATen/Parallel.h>
#include <torch/script.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <map>
#include <mutex>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr int kBatches[] = {1, 3, 7, 32, 64, 256};
constexpr double kClose = 1e-5;  // rows of another batch differ by the order of float sums

struct Input {
  torch::Dtype dtype;
  std::vector<std::string> axes;
};

Input parse(const std::string& text) {
  static const std::map<std::string, torch::Dtype> dtypes = {
      {"f32", torch::kFloat}, {"f64", torch::kDouble}, {"i64", torch::kLong}, {"i32", torch::kInt}, {"bool", torch::kBool}};
  const auto open = text.find('['), close = text.find(']');
  if (open == std::string::npos || close == std::string::npos || !dtypes.count(text.substr(0, open))) {
    throw std::invalid_argument("an input is written as f32[N, 64], got " + text);
  }
  Input found{dtypes.at(text.substr(0, open)), {}};
  std::stringstream axes(text.substr(open + 1, close - open - 1));
  for (std::string axis; std::getline(axes, axis, ',');) {
    axis.erase(std::remove(axis.begin(), axis.end(), ' '), axis.end());
    found.axes.push_back(axis);
  }
  return found;
}

std::vector<torch::jit::IValue> draw(const std::vector<Input>& inputs, int64_t batch) {
  std::vector<torch::jit::IValue> made;
  for (const auto& input : inputs) {
    std::vector<int64_t> sizes;
    for (const auto& axis : input.axes) {
      sizes.push_back(axis == "N" ? batch : std::isdigit(axis[0]) ? std::stoll(axis) : 16);
    }
    const bool real = input.dtype == torch::kFloat || input.dtype == torch::kDouble;
    made.push_back(real ? torch::randn(sizes, input.dtype) : torch::ones(sizes, input.dtype));
  }
  return made;
}

std::vector<torch::Tensor> tensors(const torch::jit::IValue& value) {
  std::vector<torch::Tensor> found;
  value.visit([&found](const torch::jit::IValue& part) {
    if (part.isTensor()) found.push_back(part.toTensor());
    return false;
  });
  return found;
}

double difference(const torch::jit::IValue& one, const torch::jit::IValue& two) {
  double largest = 0;
  const auto left = tensors(one), right = tensors(two);
  if (left.size() != right.size()) throw std::runtime_error("answers have different forms");
  for (size_t i = 0; i < left.size(); ++i) {
    if (left[i].numel() == 0) continue;
    const auto a = left[i].to(torch::kDouble), b = right[i].to(torch::kDouble);
    largest = std::max(largest, ((a - b).abs().max() / a.abs().max().clamp_min(1e-30)).item<double>());
  }
  return largest;
}

struct Counters {  // of all calls, by site and name
  std::mutex lock;
  std::map<std::string, int64_t> total;

  void add(const torch::jit::IValue& counts) {
    std::lock_guard<std::mutex> held(lock);
    for (const auto& site : counts.toGenericDict()) {
      for (const auto& one : site.value().toGenericDict()) {
        auto& sum = total[site.key().toStringRef() + " " + one.key().toStringRef()];
        const int64_t value = one.value().toInt();
        sum = one.key().toStringRef().rfind("largest_", 0) == 0 ? std::max(sum, value) : sum + value;
      }
    }
  }
};

struct Options {
  std::string path;
  std::vector<Input> inputs;
  int threads = 4, calls = 200;
};

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--threads" && i + 1 < argc) options.threads = std::stoi(argv[++i]);
    else if (word == "--calls" && i + 1 < argc) options.calls = std::stoi(argv[++i]);
    else if (options.path.empty()) options.path = word;
    else options.inputs.push_back(parse(word));
  }
  if (options.inputs.empty()) throw std::invalid_argument("host model.pt 'f32[N, 64]' ... [--threads N] [--calls N]");
  return options;
}

int run(const Options& options) {
  c10::InferenceMode guard;
  at::set_num_threads(1);  // one thread a call: the calls are what runs side by side
  auto module = torch::jit::load(options.path, torch::kCPU);
  module.eval();
  module = torch::jit::freeze(module, std::vector<std::string>{"forward_counted"});

  std::vector<std::vector<torch::jit::IValue>> batches;
  std::vector<torch::jit::IValue> alone;
  torch::manual_seed(0);
  for (const int rows : kBatches) {
    batches.push_back(draw(options.inputs, rows));
    for (int warm = 0; warm < 2; ++warm) module.forward(batches.back());  // TorchScript compiles in its first calls
    alone.push_back(module.forward(batches.back()));
  }

  Counters counters;
  std::atomic<int> next{0};
  std::mutex lock;
  double worst = 0;
  std::string failed;
  const auto begin = std::chrono::steady_clock::now();
  std::vector<std::thread> threads;
  for (int t = 0; t < options.threads; ++t) {
    threads.emplace_back([&] {
      c10::InferenceMode own;
      at::set_num_threads(1);
      try {
        auto counted = module.get_method("forward_counted");
        for (int call = next++; call < options.calls; call = next++) {
          const size_t i = call % batches.size();
          const auto answer = counted(batches[i]).toTuple();
          counters.add(answer->elements()[1]);
          const double off = difference(alone[i], answer->elements()[0]);
          std::lock_guard<std::mutex> held(lock);
          worst = std::max(worst, off);
        }
      } catch (const std::exception& error) {
        std::lock_guard<std::mutex> held(lock);
        failed = error.what();
      }
    });
  }
  for (auto& thread : threads) thread.join();
  if (!failed.empty()) throw std::runtime_error(failed);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  std::printf("%d calls of 1 to %d samples on %d threads in %.2f s\n", options.calls, kBatches[std::size(kBatches) - 1],
              options.threads, seconds);
  std::printf("largest difference from one thread's answers: %.1e\n", worst);
  for (const auto& [name, count] : counters.total) std::printf("%-50s %12lld\n", name.c_str(), static_cast<long long>(count));
  return worst <= kClose ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(parse(argc, argv));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
}
