// Tiny models with random weights, as folders.
#pragma once

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "compress/core/model.h"
#include "compress/io/element_type.h"

namespace attar::testing {

struct TinyModel {
  std::int64_t hidden = 64, ffn = 96, heads = 4, kv_heads = 2, layers = 2, vocabulary = 40;
  bool tied = true;
  bool biases = false;
  io::ElementType type = io::ElementType::f32;
  int shards = 1;
  std::uint64_t seed = 1;
  nlohmann::json extra = nlohmann::json::object();  // merged into config.json
};

// Writes config.json and safetensors into the folder, which must exist.
void write_tiny_model(const std::filesystem::path& folder, const TinyModel& tiny);

// Gaussian values that are exactly representable in every type that a file may have.
at::Tensor random_values(std::vector<std::int64_t> shape, std::uint64_t seed);

// Every tensor of a model as float32, by the name that Hugging Face has for it.
std::map<std::string, at::Tensor> dense_tensors(const Model& model);

// Fails the test naming the tensor unless all are equal bit for bit.
void expect_same_tensors(const Model& got, const Model& expected);

}  // namespace attar::testing
